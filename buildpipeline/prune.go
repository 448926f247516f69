package buildpipeline

import (
	"context"
	"slices"
	"time"

	"github.com/daeploy/daeploy"
)

// tidyEvery is how often all apps are looked at; besides, an app is whenever one
// of its builds has ended, and when its repository takes no push any more.
const tidyEvery = time.Hour

// clearTime bounds one try to remove what dropped builds have left.
const clearTime = 5 * time.Minute

// tidy keeps all apps within their limits until ctx ends, and begins with what
// the last daemon did not come to. One app at a time, and never in the way of a
// build.
func (p *Pipeline) tidy(ctx context.Context) {
	ticks := time.NewTicker(tidyEvery)
	defer ticks.Stop()
	for {
		apps, err := p.Journal.Apps()
		if err != nil {
			p.Log.Warn("apps stay as they are for now", "err", err)
		}
		for _, app := range apps {
			if ctx.Err() != nil {
				return
			}
			p.tidyApp(ctx, app.Name)
		}
		p.sweepSpares(ctx)
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return
		}
	}
}

// Crowded looks at an app soon whose repository takes no push any more. It does
// not wait for that, and one look at a time is enough for all who ask.
func (p *Pipeline) Crowded(app daeploy.AppName) {
	if _, asked := p.crowded.LoadOrStore(app, true); asked {
		return
	}
	look := func() {
		defer p.crowded.Delete(app)
		ctx, cancel := p.untilStopped(context.Background())
		defer cancel()
		p.tidyApp(ctx, app)
	}
	select {
	case p.work <- look:
	case <-p.stopped: // the next daemon begins with a look at all
	}
}

// tidyApp keeps one app within its limits. What fails is done the next time.
func (p *Pipeline) tidyApp(ctx context.Context, app daeploy.AppName) {
	freed, err := p.collectApp(ctx, app, collecting{})
	switch {
	case ctx.Err() != nil, daeploy.KindOf(err) == daeploy.NotFound: // it was deleted
	case err != nil:
		p.Log.Warn("retention was not done; it will be", "app", app, "err", err)
	case !freed.Nothing():
		p.Log.Info("retention done", "app", app, "builds", len(freed.Builds), "images", len(freed.Images), "git", freed.GitBytes, "cache", freed.CacheBytes)
	}
}

// collecting says how thoroughly an app is looked at.
type collecting struct {
	look bool // only say what would be freed
	all  bool // repack the repository even if little has piled up, and let go of pins without a build
}

// collectApp takes what is beyond an app's limits, one app at a time.
func (p *Pipeline) collectApp(ctx context.Context, app daeploy.AppName, how collecting) (f daeploy.Freed, err error) {
	select {
	case p.collects <- struct{}{}:
		defer func() { <-p.collects }()
	case <-ctx.Done():
		return f, context.Cause(ctx)
	}
	f.App = app
	gone, err := p.drop(ctx, &f, how)
	if err == nil && !how.look {
		err = p.clear(ctx, app)
	}
	if err != nil {
		return f, err
	}
	if age := p.Rules().keep(app).CacheAge; age > 0 {
		if f.CacheBytes, err = p.Engine.DropUnusedCache(ctx, app, time.Now().Add(-age), how.look); err != nil {
			return f, err
		}
	}
	if how.look {
		f.GitBytes, err = p.Source.Unreachable(ctx, app, gone)
		return f, err
	}
	if len(p.queue.of(app)) > 0 {
		f.Left = "the repository, while builds wait or run"
		return f, nil
	}
	f.GitBytes, err = p.Source.Maintain(ctx, app, how.all)
	if daeploy.KindOf(err) != daeploy.TryAgain {
		return f, err
	}
	f.Left = "the repository, which is in use"
	if daeploy.NoRoom(err) {
		f.Left = "the repository, since the disk has no room to pack it anew"
	}
	return f, nil
}

// drop takes builds and images out of the journal; when it only looks, it names
// the pins that would go. No push or rebuild finds its place meanwhile: it might
// be of a commit that is about to go.
func (p *Pipeline) drop(ctx context.Context, f *daeploy.Freed, how collecting) (pins []string, err error) {
	if !how.all && !p.Rules().keep(f.App).bounds() {
		return nil, nil // without limits the past is long, and need not be read
	}
	leave, err := p.alone(ctx, f.App)
	if err != nil {
		return nil, err
	}
	defer leave()
	all, err := p.Journal.Builds(daeploy.BuildFilter{Apps: []daeploy.AppName{f.App}})
	if err != nil {
		return nil, err
	}
	imageless, err := p.choose(ctx, f, all)
	if err != nil {
		return nil, err
	}
	if how.all {
		if pins, err = p.unclaimedPins(ctx, f, all); err != nil {
			return nil, err
		}
	}
	if how.look {
		return pins, nil
	}
	if len(f.Builds)+len(imageless) > 0 {
		if err := p.Journal.Drop(f.Builds, imageless); err != nil {
			return nil, err
		}
	}
	if len(pins) == 0 {
		return nil, nil
	}
	return nil, p.Source.DeleteRefs(ctx, f.App, pins...)
}

// choose writes into f what of an app's builds goes, newest first; imageless are
// those that stay without their image.
func (p *Pipeline) choose(ctx context.Context, f *daeploy.Freed, all []daeploy.Build) (imageless []daeploy.BuildID, err error) {
	unfinished, err := p.Journal.Unfinished()
	if err != nil {
		return nil, err
	}
	unsettled := map[daeploy.BuildID]bool{}
	for _, b := range unfinished {
		unsettled[b.ID] = true
	}
	w := p.weights(ctx)
	builds, images := p.Rules().keep(f.App).over(all, p.kept(all, unsettled), w, p.now())
	for _, b := range builds {
		f.Builds = append(f.Builds, b.ID)
		f.LogBytes += w.log(&b)
	}
	for _, b := range images {
		imageless = append(imageless, b.ID)
	}
	for _, b := range slices.Concat(builds, images) {
		if b.Image != "" {
			f.Images = append(f.Images, b.Image)
			f.ImageBytes += w.image(&b)
		}
	}
	return imageless, nil
}

// unclaimedPins are the pins of an app that no build will have: those that f says
// go, and those of which there is no record.
func (p *Pipeline) unclaimedPins(ctx context.Context, f *daeploy.Freed, all []daeploy.Build) (pins []string, err error) {
	numbers, err := p.Source.Pins(ctx, f.App)
	if err != nil {
		return nil, err
	}
	claimed := map[uint64]bool{}
	for _, b := range all {
		claimed[b.ID.Number] = !slices.Contains(f.Builds, b.ID)
	}
	for _, n := range numbers {
		if !claimed[n] {
			pins = append(pins, pinOf(daeploy.BuildID{App: f.App, Number: n}))
		}
	}
	return pins, nil
}

// weights asks store and containerd. What is not there weighs nothing, and what
// cannot be asked counts as nothing: it only makes less go.
func (p *Pipeline) weights(ctx context.Context) weights {
	return weights{
		log: func(b *daeploy.Build) int64 {
			n, err := p.Journal.LogSize(b.ID)
			if err != nil {
				p.Log.Warn("size of a log is not known", "build", b.ID, "err", err)
			}
			return n
		},
		image: func(b *daeploy.Build) int64 {
			image, err := p.Engine.Find(ctx, b.Image)
			if err != nil && daeploy.KindOf(err) != daeploy.NotFound {
				p.Log.Warn("size of an image is not known", "build", b.ID, "err", err)
			}
			return image.Own
		},
	}
}

// clear removes what dropped builds of an app have elsewhere, also those that an
// earlier daemon has dropped. It can be repeated (F130).
func (p *Pipeline) clear(ctx context.Context, app daeploy.AppName) error {
	builds, images, err := p.Journal.Dropped(app)
	if err != nil || len(builds)+len(images) == 0 {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, clearTime)
	defer cancel()
	ids := slices.Concat(builds, images)
	for _, id := range ids {
		if err := p.Engine.Untag(ctx, id.Image()); err != nil {
			return err
		}
	}
	var pins []string
	for _, id := range builds {
		pins = append(pins, pinOf(id))
	}
	if err := p.Source.DeleteRefs(ctx, app, pins...); err != nil && daeploy.KindOf(err) != daeploy.NotFound {
		return err
	}
	return p.Journal.Clear(ids...)
}
