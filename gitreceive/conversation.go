package gitreceive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/daeploy/daeploy"
)

// maxReason bounds the words git prints behind a refused ref, in bytes.
const maxReason = 200

// conversation is the talk with git's proc-receive hook, in pkt-lines: which
// refs are to move, and what became of it. What comes from git's side is
// bounded like a stranger's, for anybody can start a hook (F40).
type conversation struct {
	t       *transfer
	tap     *tap
	git     io.Reader // commands
	answers io.Writer
	log     io.Writer // lines for the pusher

	outcome error // the first refusal, or what broke the conversation

	peeled map[daeploy.Revision]peeled // what the commands have named so far
}

// peeled is what peel has said of an object. Many refs may name one.
type peeled struct {
	target daeploy.Revision
	err    error
}

func (c *conversation) peel(ctx context.Context, rev daeploy.Revision) (daeploy.Revision, error) {
	if p, known := c.peeled[rev]; known {
		return p.target, p.err
	}
	target, err := c.t.server.config.Repositories.peel(ctx, c.t.app, rev)
	if c.peeled == nil {
		c.peeled = map[daeploy.Revision]peeled{}
	}
	c.peeled[rev] = peeled{target, err}
	return target, err
}

// run talks until the answers are given. hello is called when the hook is
// there: git has all objects then, checked and in the repository. An error is
// kept as the outcome: without answers git refuses all by itself.
func (c *conversation) run(ctx context.Context, hello func() bool) {
	begun := false
	c.outcome = c.talk(ctx, func() bool {
		begun = true
		return hello()
	})
	if begun {
		return
	}
	// git has not asked: it has refused the push itself, or there was none.
	if c.outcome = nil; c.refs() != "" {
		c.outcome = errByGit
	}
}

var errByGit = errors.New("refused by git")

func (c *conversation) talk(ctx context.Context, hello func() bool) error {
	features, err := c.greet()
	if err != nil {
		return err
	}
	if !hello() {
		return context.Cause(ctx)
	}
	commands, options, err := c.hear(features)
	if err != nil {
		return err
	}
	errs := c.decide(ctx, commands, options, slices.Contains(features, "atomic"))
	err = c.answer(commands, errs)
	for _, refused := range errs {
		if refused != nil {
			return refused // says more than a broken pipe
		}
	}
	return err
}

// greet agrees on version 1.
func (c *conversation) greet() (features []string, err error) {
	line, flush, err := readPkt(c.git, 1024)
	if err != nil {
		return nil, err
	}
	version, rest, _ := strings.Cut(strings.TrimSuffix(string(line), "\n"), "\x00")
	if flush || version != "version=1" {
		return nil, fmt.Errorf("%w: the hook begins with %+q", errPkt, plain(string(line), 100))
	}
	if _, flush, err = readPkt(c.git, 1024); err != nil || !flush {
		return nil, fmt.Errorf("%w: the hook's greeting has no end: %w", errPkt, err)
	}
	for f := range strings.FieldsSeq(rest) {
		if f == "atomic" || f == "push-options" {
			features = append(features, f)
		}
	}
	_, err = io.WriteString(c.answers, pkt("version=1\x00"+strings.Join(features, " ")+"\n")+flushPkt)
	return features, err
}

// hear reads the commands, and the push options if there are any.
func (c *conversation) hear(features []string) (commands []daeploy.RefUpdate, options []string, err error) {
	limits := c.t.server.limits
	lines, err := c.section(limits.Commands, 2*64+2+limits.RefLen+1)
	if err != nil {
		return nil, nil, err
	}
	for _, line := range lines {
		cmd, err := parseCommand(line)
		if err != nil {
			return nil, nil, err
		}
		commands = append(commands, cmd)
	}
	if slices.Contains(features, "push-options") {
		options, err = c.section(daeploy.MaxPushOptions, daeploy.MaxPushOptionLen+1)
	}
	return commands, options, err
}

// section reads lines up to a flush.
func (c *conversation) section(most, length int) ([]string, error) {
	var lines []string
	for {
		line, flush, err := readPkt(c.git, length)
		if err != nil || flush {
			return lines, err
		}
		if len(lines) == most {
			return nil, fmt.Errorf("%w: more than %d lines", errPkt, most)
		}
		lines = append(lines, strings.TrimSuffix(string(line), "\n"))
	}
}

// decide checks what can be checked without knowing what a push means, and
// asks Pushes about the rest. One error per command.
func (c *conversation) decide(ctx context.Context, updates []daeploy.RefUpdate, words []string, atomic bool) []error {
	errs := make([]error, len(updates))
	push, err := c.prepare(ctx, updates, words)
	if err != nil {
		return c.refuseAll(errs, err)
	}
	push.Atomic = atomic
	asked := c.tap.seen()
	if atomic && len(asked) != len(updates) {
		return c.refuseAll(errs, errAtomic) // git itself has refused one (F20)
	}
	var accepted []int
	for i, u := range updates {
		cmd, err := c.command(ctx, u)
		if errs[i] = err; err != nil {
			c.explain(err)
			continue
		}
		accepted = append(accepted, i)
		push.Commands = append(push.Commands, cmd)
	}
	if atomic && len(accepted) < len(updates) {
		for _, i := range accepted {
			errs[i] = errAtomic
		}
		return errs
	}
	if len(accepted) == 0 {
		return errs
	}
	// Before anybody writes down that they are here.
	if err := syncObjects(c.t.server.config.Repositories.path(c.t.app)); err != nil {
		return c.refuseAll(errs, fmt.Errorf("put the push on disk: %w", err))
	}
	if err := c.claim(); err != nil {
		return c.refuseAll(errs, err)
	}
	results := c.t.server.config.Pushes.Receive(ctx, push, firstWord{c.log, c.t.arrived})
	for n, i := range accepted {
		if errs[i] = errNoAnswer; n < len(results) {
			errs[i] = results[n]
		}
	}
	return errs
}

var (
	errAtomic = &daeploy.Error{
		Kind: daeploy.Failure, Code: "atomic", Message: "atomic push: another ref of it was refused",
	}
	errNoAnswer = errors.New("no result for a command")
)

func (c *conversation) refuseAll(errs []error, err error) []error {
	c.explain(err)
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// prepare checks what concerns the whole push: the rights of this moment, the
// options, the number of refs.
func (c *conversation) prepare(ctx context.Context, updates []daeploy.RefUpdate, words []string) (daeploy.Push, error) {
	actor, ok := c.t.current()
	switch {
	case !ok:
		return daeploy.Push{}, errKeyGone
	case !actor.May(c.t.app):
		return daeploy.Push{}, denied(actor, c.t.app)
	}
	options, err := daeploy.ParsePushOptions(words)
	if err != nil {
		return daeploy.Push{}, err
	}
	if err := c.refsLimit(ctx, updates); err != nil {
		return daeploy.Push{}, err
	}
	return daeploy.Push{App: c.t.app, By: actor, Options: options}, nil
}

func (c *conversation) refsLimit(ctx context.Context, updates []daeploy.RefUpdate) error {
	grow := 0
	for _, u := range updates {
		switch {
		case u.Old == "" && u.New != "":
			grow++
		case u.New == "":
			grow--
		}
	}
	most := c.t.server.limits.Refs
	if grow <= 0 {
		return nil
	}
	repos := c.t.server.config.Repositories
	have, err := repos.refs(ctx, repos.path(c.t.app), most, "refs/heads/", "refs/tags/")
	if err == nil && have+grow > most {
		err = &daeploy.Error{
			Kind: daeploy.Failure, Code: "refs_limit",
			Message: fmt.Sprintf("%s has %d refs; the limit is %d", c.t.app, have, most), Hint: "delete old branches and tags first" + raise("receive.refs"),
		}
	}
	return err
}

// command checks one: its name, and that it points to a commit (F31, F32).
func (c *conversation) command(ctx context.Context, u daeploy.RefUpdate) (daeploy.Command, error) {
	if err := checkRef(u.Ref, c.t.server.limits.RefLen); err != nil {
		return daeploy.Command{}, err
	}
	if u.New == "" {
		return daeploy.Command{RefUpdate: u}, nil
	}
	target, err := c.peel(ctx, u.New)
	if err != nil {
		return daeploy.Command{}, err
	}
	if strings.HasPrefix(u.Ref, "refs/heads/") && target != u.New {
		return daeploy.Command{}, &daeploy.Error{
			Kind: daeploy.Invalid, Code: "not_a_commit", Message: "a branch cannot point to a tag",
			Hint: fmt.Sprintf("push the commit: git push daeploy %s:%s", target.Short(), plain(u.Ref, 255)),
		}
	}
	return daeploy.Command{RefUpdate: u, Target: target}, nil
}

// claim makes the record of an app at its first acceptable push. Of two first pushes at
// once the second finds it made, and tells of nothing (F38).
func (c *conversation) claim() error {
	apps := c.t.server.config.Apps
	if _, err := apps.App(c.t.app); daeploy.KindOf(err) != daeploy.NotFound {
		return err
	}
	c.t.server.claiming.Lock()
	defer c.t.server.claiming.Unlock()
	if _, err := apps.App(c.t.app); daeploy.KindOf(err) != daeploy.NotFound {
		return err
	}
	if _, err := apps.CreateApp(c.t.app); err != nil {
		if _, again := apps.App(c.t.app); again != nil {
			return err
		}
		return nil // somebody who does not push was faster
	}
	c.t.tell(daeploy.EventAppCreated, 0, "", nil)
	return nil
}

// explain prints a refusal of ours, and the next action; those of Pushes have said
// theirs.
func (c *conversation) explain(err error) { sayError(c.log, err, string(c.t.app)) }

// answer gives git the results. Refs go back byte for byte, or git would not
// know them.
func (c *conversation) answer(commands []daeploy.RefUpdate, errs []error) error {
	var all strings.Builder
	for i, cmd := range commands {
		line := "ok " + cmd.Ref
		if errs[i] != nil {
			line = "ng " + cmd.Ref + " " + reason(errs[i], string(c.t.app))
		}
		all.WriteString(pkt(line))
	}
	_, err := io.WriteString(c.answers, all.String()+flushPkt)
	return err
}

// reason is what stands in the brackets of git's "! [remote rejected]".
func reason(err error, what string) string {
	e := daeploy.Public(err, what)
	if e.Kind == daeploy.BuildFailed {
		return plain("build failed: "+e.Message, maxReason)
	}
	return plain(e.Message, maxReason)
}
