package main

import (
	"context"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/buildpipeline"
	"github.com/daeploy/daeploy/container"
	"github.com/daeploy/daeploy/control"
	"github.com/daeploy/daeploy/gitreceive"
	"github.com/daeploy/daeploy/publish"
	"github.com/daeploy/daeploy/store"
	"github.com/daeploy/daeploy/webhook"
)

// inForce is the configuration that the daemon works by. A reload puts another one
// in its place, whole or not at all (docs/decisions/0037).
type inForce struct {
	read  func() (config, error) // file and flags, as they are now
	rooms rooms
	board *board
	log   *slog.Logger

	one sync.Mutex // held by who reloads
	now atomic.Pointer[config]
}

// rooms are those that work by rules, and what rules are made with.
type rooms struct {
	doors        doors
	repositories *gitreceive.Repositories
	containers   *container.Engine
	publisher    *publish.Publisher
	pipeline     *buildpipeline.Pipeline
	hooks        *webhook.Sender
	authorities  *gitreceive.Authorities
	penalties    *gitreceive.Penalties
}

// enforce makes the rooms that work by rules, and gives them those of c.
func (c *config) enforce(read func() (config, error), in rooms, records *store.Store, board *board, log *slog.Logger) (*inForce, error) {
	rules, err := c.rules(in.doors, in.repositories, log)
	if err != nil {
		return nil, err
	}
	owner, err := records.ID()
	if err != nil {
		return nil, err
	}
	in.authorities, in.penalties = rules.authorities, gitreceive.NewPenalties(rules.penalties)
	if in.publisher, err = publish.New(publish.Config{
		Journal: records, Registry: in.containers, Images: in.containers, Log: log, Version: version, Rules: rules.images,
	}); err != nil {
		return nil, err
	}
	if in.pipeline, err = buildpipeline.New(buildpipeline.Config{
		Source: in.repositories, Journal: journal{records}, Engine: engine{in.containers}, Rights: rights{records, rules.authorities},
		Log: log, Version: version, Settings: records, Publisher: in.publisher, Rules: rules.builds,
	}); err != nil {
		return nil, err
	}
	if in.hooks, err = sender(rules.hooks, records, owner, log); err != nil {
		return nil, err
	}
	f := &inForce{read: read, rooms: in, board: board, log: log}
	f.now.Store(c)
	return f, nil
}

// config is what holds at this moment. Nobody changes it.
func (f *inForce) config() *config { return f.now.Load() }

// follow reloads at each hang-up, until ctx ends.
func (f *inForce) follow(ctx context.Context, hangUps <-chan os.Signal, tell func(daeploy.Event)) error {
	for {
		select {
		case <-hangUps:
		case <-ctx.Done():
			return nil
		}
		if r, err := f.Reload(ctx); err == nil {
			tell(r.Event())
		}
	}
}

// Reload takes the configuration as it is now. What is refused is logged, and
// changes nothing.
func (f *inForce) Reload(context.Context) (r control.Reload, err error) {
	f.one.Lock()
	defer f.one.Unlock()
	err = f.board.reload(func() error {
		r, err = f.reload()
		return err
	})
	if err != nil {
		f.log.Error("configuration refused, the one before holds", "err", err)
		e := daeploy.Public(err, "the configuration")
		e.Logged = true
		return r, e
	}
	return r, nil
}

func (f *inForce) reload() (r control.Reload, err error) {
	now := f.config()
	next, err := f.read()
	if err != nil {
		return r, err
	}
	r.File = next.file
	r.Taken, r.Restart = next.inherit(now)
	if err := next.check(); err != nil { // what stays need not go with what is new
		return r, err
	}
	rules, err := next.rules(f.rooms.doors, f.rooms.repositories, f.log)
	if err != nil {
		return r, err
	}
	// Nothing can fail from here on.
	f.rooms.authorities.Adopt(rules.authorities)
	f.rooms.penalties.Adopt(rules.penalties)
	f.rooms.containers.Adopt(rules.containers)
	f.rooms.publisher.Adopt(rules.images)
	f.rooms.pipeline.Adopt(rules.builds)
	if slices.Contains(r.Taken, "webhooks") { // it would send again what is being sent
		f.rooms.hooks.Adopt(rules.hooks)
	}
	f.now.Store(&next)
	return r, nil
}

// inherit takes over the values of keys that only a restart changes, and names
// those, and the other keys whose values are not those of now.
func (c *config) inherit(now *config) (taken, restart []string) {
	taken, restart = []string{}, []string{}
	was := configValues("", reflect.ValueOf(now).Elem())
	for i, v := range configValues("", reflect.ValueOf(c).Elem()) {
		switch {
		case sameValue(was[i].value, v.value):
		case wantsRestart(v.key):
			restart = append(restart, v.key)
			v.value.Set(was[i].value)
		default:
			taken = append(taken, v.key)
		}
	}
	return taken, restart
}

// sameValue counts a table without keys as one that is not there.
func sameValue(a, b reflect.Value) bool {
	if k := a.Kind(); (k == reflect.Map || k == reflect.Slice) && a.Len()+b.Len() == 0 {
		return true
	}
	return reflect.DeepEqual(a.Interface(), b.Interface())
}

// Checkup says whether the file can be read, and is what the daemon works by.
func (f *inForce) Checkup() daeploy.Finding {
	const check = "configuration"
	next, err := f.read()
	if err != nil {
		found := daeploy.Fault(check, err)
		found.Message += "; the daemon works by what it has read before, and would not start again"
		found.Hint = "correct it, then: daeploy reload"
		return found
	}
	taken, restart := next.inherit(f.config())
	var changed []string
	if len(taken) > 0 {
		changed = append(changed, strings.Join(taken, ", ")+" (reload)")
	}
	if len(restart) > 0 {
		changed = append(changed, strings.Join(restart, ", ")+" (restart)")
	}
	switch {
	case changed == nil:
		return checkupConfig(&next)
	case len(restart) > 0:
		return daeploy.Doubt(check, "changed and not taken yet: "+strings.Join(changed, ", "), "systemctl restart daeploy")
	}
	return daeploy.Doubt(check, "changed and not taken yet: "+strings.Join(changed, ", "), "daeploy reload")
}
