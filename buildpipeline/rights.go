package buildpipeline

import (
	"context"
	"fmt"
	"time"

	"github.com/daeploy/daeploy"
)

const codeRightLost = "right_lost"

// permitted tells whether somebody may push to the app at this moment (F50). What
// he could do when he began is not asked.
func (p *Pipeline) permitted(by daeploy.Actor, app daeploy.AppName) error {
	if now, ok := p.Rights.Current(by); ok && now.May(app) {
		return nil
	}
	return &daeploy.Error{
		Kind: daeploy.Denied, Code: codeRightLost, Message: fmt.Sprintf("%s has no right to %s any more", plain(by.Name), app),
		Hint: "push again with a key that has it",
	}
}

// enterAlone is alone, for a push whose right still holds when its turn has come.
func (p *Pipeline) enterAlone(ctx context.Context, push daeploy.Push) (leave func(), err error) {
	if leave, err = p.alone(ctx, push.App); err != nil {
		return nil, err
	}
	if err := p.permitted(push.By, push.App); err != nil {
		leave()
		return nil, err
	}
	return leave, nil
}

// watchRights ends the builds of those who have lost their right, so that nothing
// of theirs goes on for long. Whether a ref moves does not hang on it: that is
// asked again when it is about to.
func (p *Pipeline) watchRights(ctx context.Context) {
	const every = 2 * time.Second
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(every):
		}
		for _, j := range p.queue.jobs() {
			if j.over.Load() {
				continue
			}
			if err := p.permitted(j.by, j.id.App); err != nil {
				j.stop(err)
			}
		}
	}
}
