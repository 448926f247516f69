package buildpipeline

import (
	"context"
	"errors"
	"fmt"
	"path"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/daeploy/daeploy"
)

// labelCache names the directory at which a builder wants the app's package
// cache.
const labelCache = "io.daeploy.cache"

// cachePathBytes bounds the label's value.
const cachePathBytes = 1024

// readCache reads from the label where the package cache is to be mounted; ""
// for nowhere. A value that would hide what a build needs, or come to lie on
// what the daemon mounts or delivers itself, is an error.
func readCache(l layout, f builderFacts) (string, error) {
	value := f.label(labelCache)
	if value == "" {
		return "", nil
	}
	if !path.IsAbs(value) || len(value) > cachePathBytes || plain(value) != value || slices.Contains(strings.Split(value, "/"), "..") {
		return "", errors.New("it is no absolute path")
	}
	at := path.Clean(value)
	if err := daeploy.CheckImagePath(at); err != nil {
		return "", fmt.Errorf("it %w", err)
	}
	own := []string{path.Join(l.Dest, "src"), path.Join(l.Dest, "scripts"), path.Join(l.Dest, "artifacts"), "/proc", "/sys", "/dev", "/run", "/etc"}
	for _, dir := range own {
		if inside(at, dir) {
			return "", fmt.Errorf("%s is not for caches", dir)
		}
	}
	for _, dir := range slices.Concat(own, []string{l.Dest, l.Workdir, l.Scripts, "/tmp", "/bin", "/lib", "/usr/bin", "/usr/lib"}) {
		if dir != "" && inside(dir, at) {
			return "", fmt.Errorf("it would hide %s", dir)
		}
	}
	return at, nil
}

// inside tells whether clean path p is dir or below it.
func inside(p, dir string) bool {
	return p == dir || dir == "/" || strings.HasPrefix(p, dir+"/")
}

// findCache decides whether the build has a package cache. A label that cannot
// be used costs the cache, not the build. Whether the path's directories are ones
// is seen when assemble is started: a link or a file there is builder_invalid,
// since an image of such shape may mean to lead the mount elsewhere.
func (c *contract) findCache() {
	at, err := readCache(c.layout, c.facts)
	if err != nil {
		c.spoken = append(c.spoken, notice("%s of %s is %q: %v; there is no package cache",
			labelCache, c.image.Ref, shorten(c.facts.label(labelCache), detailWidth), err))
	}
	c.cache = at
}

// packageCache asks for the cache in assemble's container; assemble-runtime has none.
func (c *contract) packageCache(a *attempt) daeploy.Cache {
	return daeploy.Cache{Path: c.cache, For: c.image.Digest, Clean: a.Build.Options.Clean}
}

// trimTime bounds the count of a package cache: a build's end does not wait
// for it for ever.
const trimTime = time.Minute

// trimCache counts the package cache when the build has ended, however it did:
// downloads of a build that failed are good for the next one.
func (a *attempt) trimCache() {
	a.trims = true
	if a.ws == nil || a.note.Output.Cache == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), trimTime)
	defer cancel()
	inodes := a.Limits.CacheInodes
	if a.Limits.Cache == 0 {
		inodes = 0
	}
	detail, err := a.ws.TrimCache(ctx, a.Limits.Cache, inodes)
	switch {
	case err != nil:
		a.Log.Warn("package cache could not be counted; the next build drops it", "build", a.Build.ID, "err", err)
	case detail != "" && a.Limits.Cache > 0 && !a.told:
		a.logged(a.log.Say(notice("the package cache was emptied: it held %s", detail)))
	}
}

// trimLate is trimCache for a build whose end was not to wait for it: a canceled
// one is final within two seconds, however much the cache holds (F111). The app's
// next build waits for it, and after a crash in between drops the cache.
func (a *attempt) trimLate() {
	if a.left || a.trims {
		return
	}
	defer func() {
		if r := recover(); r != nil {
			a.Log.Error("counting the package cache panicked", "build", a.Build.ID, "err", r, "stack", string(debug.Stack()))
		}
	}()
	a.trimCache()
}

// sweepCaches removes the package caches of apps that are gone.
func (p *Pipeline) sweepCaches(ctx context.Context) error {
	return p.Engine.SweepCaches(ctx, p.known)
}

// lostCaches lists the apps that are gone and have a package cache still.
func (p *Pipeline) lostCaches() (lost []daeploy.AppName, err error) {
	apps, err := p.Engine.Caches()
	if err != nil {
		return nil, err
	}
	for _, app := range apps {
		known, err := p.known(app)
		if err != nil {
			return nil, err
		}
		if !known {
			lost = append(lost, app)
		}
	}
	return lost, nil
}

func (p *Pipeline) known(name daeploy.AppName) (bool, error) {
	_, err := p.Journal.App(name)
	if daeploy.KindOf(err) == daeploy.NotFound {
		return false, nil
	}
	return true, err
}
