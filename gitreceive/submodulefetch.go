package gitreceive

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/daeploy/daeploy"
)

// fetch asks a host for one commit and pins it. First for the commit itself,
// without what came before it; a host that gives only what its refs name is
// asked for all branches and tags.
func (g *gathering) fetch(ctx context.Context, e daeploy.TreeEntry, from remote, pin string) error {
	env, err := g.config.environ(from, g.limits)
	if err != nil {
		return g.unreachable(e, from, err.Error(), err)
	}
	said, err := g.ask(ctx, env, "--depth=1", "--", from.url, string(e.ID))
	if err != nil && ctx.Err() == nil && !strings.Contains(said, "not our ref") && !g.overflowed() {
		sum := sha256.Sum256([]byte(from.url))
		refs := fmt.Sprintf("refs/from/%x/", sum[:8])
		said, err = g.ask(ctx, env, wholeHistory, "--prune", "--", from.url, "+refs/heads/*:"+refs+"heads/*", "+refs/tags/*:"+refs+"tags/*")
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case strings.Contains(said, "not our ref"):
		return absent(e, from, err)
	case err != nil && g.overflowed():
		return treeLimit("submodule %s has more than %d MiB", quotePath(e.Path), g.limits.PackBytes>>20)
	case err != nil:
		return g.unreachable(e, from, said, err)
	}
	// All branches need not have it, and what has come need be neither whole nor
	// a commit.
	_, err = g.repos.git.run(ctx, nil, "--git-dir="+g.dir, "rev-list", "--quiet", "--objects", "--no-walk", string(e.ID)+"^{commit}")
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return absent(e, from, err)
	}
	if err := syncObjects(g.dir); err != nil {
		return fmt.Errorf("put a submodule of %s on disk: %w", g.app, err)
	}
	_, err = g.repos.git.run(context.WithoutCancel(ctx), nil, "--git-dir="+g.dir, "update-ref", pin, string(e.ID))
	if err != nil {
		return fmt.Errorf("pin a submodule of %s: %w", g.app, err)
	}
	return g.repos.git.syncRefs(g.dir, pin)
}

// wholeHistory is git's number for a depth without end. With any depth git
// refuses a web server that only has files: what it took from one would pass no
// fsck and no limit of a pack.
const wholeHistory = "--depth=2147483647"

// overflowed tells whether git was ended because a pack went over its limit: it
// leaves it half.
func (g *gathering) overflowed() bool {
	halves, _ := filepath.Glob(filepath.Join(g.dir, "objects", "pack", "tmp_pack_*")) // the pattern is sound
	return slices.ContainsFunc(halves, func(path string) bool {
		info, err := os.Stat(path)
		return err == nil && info.Size() >= g.limits.PackBytes
	})
}

// absent is for a commit that its host does not have.
func absent(e daeploy.TreeEntry, from remote, err error) error {
	return &daeploy.Error{
		Kind: daeploy.BuildFailed, Code: "source_unsafe",
		Message: fmt.Sprintf("commit %s of submodule %s is not at %s", e.ID.Short(), quotePath(e.Path), from.url),
		Hint:    "push the submodule's commit there, then push again", Err: err,
	}
}

// unreachable is for a host that gives nothing: the fault is not in the source.
func (g *gathering) unreachable(e daeploy.TreeEntry, from remote, cause string, err error) error {
	cause = strings.ReplaceAll(cause, g.dir, "the repository")
	return &daeploy.Error{
		Kind: daeploy.Unavailable, Code: "submodule_unreachable",
		Message: fmt.Sprintf("submodule %s could not be fetched: %s", quotePath(e.Path), plain(cause, 300)),
		Hint:    "push again later; the operator can check " + from.host, Err: err,
	}
}

// environ is what git and the ssh it starts get to know: no helper and no
// prompt for passwords, no other protocol, no other host by a redirect.
func (c SubmoduleConfig) environ(to remote, limits Limits) ([]string, error) {
	settings := []setting{
		{"transfer.fsckObjects", "true"},
		{"fetch.unpackLimit", "1"},
		{"fetch.recurseSubmodules", "false"},
		{"http.followRedirects", "false"},
		{"core.askPass", ""},
		{"credential.helper", ""},
		{"core.bigFileThreshold", neverStreamed},
	}
	if c.CA != "" {
		settings = append(settings, setting{"http.sslCAInfo", c.CA})
	}
	login := to.login
	if _, own := login.Password(); to.scheme == "https" && !own {
		known, err := c.login(to)
		if err != nil {
			return nil, err
		}
		if known != nil {
			login = known
		}
	}
	if login != nil {
		// For this host alone, and neither in a command line nor in a file.
		settings = append(settings, setting{"http.https://" + to.host + "/.extraHeader", "Authorization: " + basic(login)})
	}
	env := append(environ(settings...), "GIT_ALLOW_PROTOCOL="+to.scheme, "GIT_ALLOC_LIMIT="+strconv.FormatInt(limits.ObjectBytes+1<<20, 10))
	if to.scheme == "ssh" {
		return append(env, "GIT_SSH_COMMAND="+c.ssh(), "GIT_SSH_VARIANT=ssh"), nil
	}
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"} {
		if value := os.Getenv(name); value != "" {
			env = append(env, name+"="+value) // as it holds for registries too
		}
	}
	return env, nil
}

// ask runs git fetch, within the limits of time, memory and size. said are the
// first lines of what git complains of.
func (g *gathering) ask(ctx context.Context, env []string, args ...string) (said string, err error) {
	limits := g.limits
	limits.PackBytes /= 2 // a child may write a file of twice that size
	c, err := startChild(g.repos.git, limits, env, nil, append([]string{
		"--git-dir=" + g.dir, "fetch", "--progress", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head", "--no-auto-maintenance",
	}, args...)...)
	if err != nil {
		return "", err
	}
	defer closeAll([]io.Closer{c.out, c.err})
	c.in.Close()
	defer context.AfterFunc(ctx, c.kill)()
	var stalled atomic.Bool
	stall := time.AfterFunc(limits.Silence, func() {
		stalled.Store(true)
		c.kill()
	})
	tail := &tailBuffer{most: 4 << 10}
	var pumps sync.WaitGroup
	pumps.Go(func() { _, _ = io.Copy(io.Discard, c.out) }) // ends with git
	pumps.Go(func() {
		_, _ = io.Copy(&movedWriter{tail, func() { stall.Reset(limits.Silence) }}, c.err)
	})
	err = c.wait()
	pumps.Wait()
	stall.Stop()
	switch {
	case err == nil:
		return "", nil
	case stalled.Load():
		return fmt.Sprintf("no byte came for %s", limits.Silence), err
	}
	return complaint(tail.String()), errors.Join(err, errors.New(plain(tail.String(), 4<<10)))
}

// complaint picks the lines of git's standard error that say what is wrong.
func complaint(said string) string {
	var lines []string
	for line := range strings.FieldsFuncSeq(said, func(c rune) bool { return c == '\n' || c == '\r' }) {
		line = strings.TrimSpace(line)
		if line == "" || strings.Contains(line, "%") || strings.HasPrefix(line, "remote: ") || strings.HasPrefix(line, "Please make sure") {
			continue
		}
		if lines = append(lines, strings.TrimPrefix(line, "fatal: ")); len(lines) == 2 {
			break
		}
	}
	return strings.Join(lines, "; ")
}

// tailBuffer keeps the last bytes.
type tailBuffer struct {
	buf  []byte
	most int
}

func (t *tailBuffer) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p...)
	t.buf = append(t.buf[:0], t.buf[max(0, len(t.buf)-t.most):]...)
	return len(p), nil
}

func (t *tailBuffer) String() string { return string(t.buf) }

// movedWriter tells of every byte that passes.
type movedWriter struct {
	io.Writer
	moved func()
}

func (m *movedWriter) Write(p []byte) (int, error) {
	m.moved()
	return m.Writer.Write(p)
}
