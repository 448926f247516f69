package gitreceive_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/gitreceive"
)

type keyring struct {
	mu   sync.Mutex
	keys map[daeploy.KeyID]daeploy.Key
}

func (k *keyring) Key(id daeploy.KeyID) (daeploy.Key, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	key, ok := k.keys[id]
	return key, ok
}

func (k *keyring) set(key daeploy.Key) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keys[key.ID] = key
}

func (k *keyring) remove(id daeploy.KeyID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.keys, id)
}

type apps struct {
	mu    sync.Mutex
	names map[daeploy.AppName]bool
}

func (a *apps) App(name daeploy.AppName) (daeploy.App, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.names[name] {
		return daeploy.App{}, daeploy.Errorf(daeploy.NotFound, "app_not_found", "there is no app %q", name)
	}
	return daeploy.App{Name: name}, nil
}

// CreateApp takes a moment, as the disk does: whoever comes at once comes in between.
func (a *apps) CreateApp(name daeploy.AppName) (daeploy.App, error) {
	time.Sleep(20 * time.Millisecond)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.names[name] = true
	return daeploy.App{Name: name}, nil
}

func (a *apps) has(name daeploy.AppName) bool {
	_, err := a.App(name)
	return err == nil
}

// pipeline moves refs as soon as they come; its fields change that.
type pipeline struct {
	repos *gitreceive.Repositories

	mu     sync.Mutex
	pushes []daeploy.Push
	ready  error
	before func(ctx context.Context, p daeploy.Push, log io.Writer) error

	crowded func(app daeploy.AppName)
}

func (b *pipeline) set(change func(*pipeline)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change(b)
}

func (b *pipeline) Ready(context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ready
}

func (b *pipeline) Receive(ctx context.Context, p daeploy.Push, log io.Writer) []error {
	b.mu.Lock()
	b.pushes = append(b.pushes, p)
	before := b.before
	b.mu.Unlock()
	errs := make([]error, len(p.Commands))
	fmt.Fprintf(log, "daeploy has %d of %s\n", len(p.Commands), p.App)
	if before != nil {
		if err := before(ctx, p, log); err != nil {
			for i := range errs {
				errs[i] = err
			}
			return errs
		}
	}
	if p.Atomic {
		var all []daeploy.RefUpdate
		for _, c := range p.Commands {
			all = append(all, c.RefUpdate)
		}
		err := b.repos.MoveRefs(context.WithoutCancel(ctx), p.App, all...)
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	for i, c := range p.Commands {
		errs[i] = b.repos.MoveRefs(context.WithoutCancel(ctx), p.App, c.RefUpdate)
	}
	return errs
}

func (b *pipeline) Crowded(app daeploy.AppName) {
	b.mu.Lock()
	crowded := b.crowded
	b.mu.Unlock()
	if crowded != nil {
		crowded(app)
	}
}

func (b *pipeline) seen() []daeploy.Push {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.pushes)
}

// commands answers with what it was asked.
type commands struct {
	mu   sync.Mutex
	exec func(ctx context.Context, e gitreceive.Exec) int
}

func (c *commands) Exec(ctx context.Context, e gitreceive.Exec) int {
	c.mu.Lock()
	exec := c.exec
	c.mu.Unlock()
	if exec != nil {
		return exec(ctx, e)
	}
	fmt.Fprintf(e.Stdout, "%s asks %q\n", e.Actor.Name, e.Words)
	return 0
}

func (c *commands) set(exec func(ctx context.Context, e gitreceive.Exec) int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.exec = exec
}

// auditor writes events as the daemon's log has them.
type auditor slog.Logger

func (a *auditor) Tell(e daeploy.Event) {
	(*slog.Logger)(a).Info(string(e.Kind), "user", e.By, "certificate", e.Certificate, "remote", e.Remote, "app", e.App, "name", e.Name, "message", e.Message) //nolint:sloglint // the kind is one of a closed list
}

type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
