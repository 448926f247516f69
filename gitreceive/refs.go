package gitreceive

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"

	"github.com/daeploy/daeploy"
)

// Ref is the value of a ref, or the empty Revision.
func (r *Repositories) Ref(ctx context.Context, app daeploy.AppName, ref string) (daeploy.Revision, error) {
	dir, err := r.existing(app)
	if err != nil {
		return "", err
	}
	if err := checkOwnRef(ref); err != nil {
		return "", err
	}
	return r.ref(ctx, dir, ref)
}

func (r *Repositories) ref(ctx context.Context, dir, ref string) (daeploy.Revision, error) {
	out, err := r.git.run(ctx, nil, "--git-dir="+dir, "for-each-ref", "--format=%(objectname) %(refname)", ref)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", ref, err)
	}
	// The pattern also matches what is below the ref's name.
	for line := range strings.Lines(out) {
		id, name, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if name == ref {
			return daeploy.ParseRevision(id)
		}
	}
	return "", nil
}

// checkOwnRef is checkRef that lets the daemon's own pins pass.
func checkOwnRef(ref string) error {
	if strings.HasPrefix(ref, daeploy.PinPrefix) && unsound(ref) == "" {
		return nil
	}
	return checkRef(ref, 4096)
}

// Descends tells whether rev has old among its ancestors, or is old. A tag
// counts as its commit.
func (r *Repositories) Descends(ctx context.Context, app daeploy.AppName, old, rev daeploy.Revision) (bool, error) {
	dir, err := r.existing(app)
	if err != nil {
		return false, err
	}
	for _, id := range []daeploy.Revision{old, rev} {
		if _, err := r.peel(ctx, app, id); err != nil {
			return false, err
		}
	}
	// It reads what strangers have written, as far back as that goes.
	limited := command{started: func(pid int) error { return limitProcess(pid, r.limits()) }}
	err = r.git.start(ctx, limited, "--git-dir="+dir, "merge-base", "--is-ancestor", string(old), string(rev))
	var exit *exec.ExitError
	switch {
	case err == nil:
		return true, nil
	case errors.As(err, &exit) && exit.ExitCode() == 1:
		return false, nil
	}
	return false, fmt.Errorf("compare %s with %s: %w", old.Short(), rev.Short(), err)
}

// MoveRefs moves all or none, each by compare-and-swap, in git's own ref
// transaction with git's own lock files. A ref that is not at its Old is an
// error of kind TryAgain with code "ref_moved"; names that cannot stand beside
// each other, as a and a/b, are "ref_conflict". What it returns nil for is on disk.
func (r *Repositories) MoveRefs(ctx context.Context, app daeploy.AppName, moves ...daeploy.RefUpdate) error {
	dir, err := r.existing(app)
	if err != nil || len(moves) == 0 {
		return err
	}
	var in strings.Builder
	in.WriteString("start\x00")
	for _, m := range moves {
		if err := checkOwnRef(m.Ref); err != nil {
			return err
		}
		switch {
		case m.New == "" && m.Old == "":
			continue // neither before nor after: nothing to do
		case m.New == "":
			fmt.Fprintf(&in, "delete %s\x00%s\x00", m.Ref, m.Old.Wire())
		default:
			fmt.Fprintf(&in, "update %s\x00%s\x00%s\x00", m.Ref, m.New.Wire(), m.Old.Wire())
		}
	}
	in.WriteString("prepare\x00commit\x00")
	defer r.move(app)()
	if err := r.updateRefs(ctx, dir, in.String()); err != nil {
		return r.explainMove(ctx, app, dir, moves, err)
	}
	refs := make([]string, len(moves))
	for i, m := range moves {
		refs[i] = m.Ref
	}
	if err := r.git.syncRefs(dir, refs...); err != nil {
		return fmt.Errorf("put refs on disk: %w", err)
	}
	return nil
}

// DeleteRefs deletes refs, wherever they are, all or none; what is not there is
// fine. After a power cut one may be there again.
func (r *Repositories) DeleteRefs(ctx context.Context, app daeploy.AppName, refs ...string) error {
	dir, err := r.existing(app)
	if err != nil || len(refs) == 0 {
		return err
	}
	var in strings.Builder
	for _, ref := range refs {
		if err := checkOwnRef(ref); err != nil {
			return err
		}
		fmt.Fprintf(&in, "delete %s\x00\x00", ref)
	}
	defer r.move(app)()
	if err := r.updateRefs(ctx, dir, in.String()); err != nil {
		return fmt.Errorf("delete refs of %s: %w", app, err)
	}
	return nil
}

// updateRefs lets git move refs; the caller holds the move. A cut-off git would
// leave lock files: once begun it is let finish.
func (r *Repositories) updateRefs(ctx context.Context, dir, commands string) error {
	_, err := r.git.run(context.WithoutCancel(ctx), strings.NewReader(commands), "--git-dir="+dir, "update-ref", "-z", "--stdin")
	return err
}

// Pins lists the numbers of the builds whose commits are pinned, in no order.
func (r *Repositories) Pins(ctx context.Context, app daeploy.AppName) ([]uint64, error) {
	dir, err := r.existing(app)
	if err != nil {
		return nil, err
	}
	out, err := r.git.run(ctx, nil, "--git-dir="+dir, "for-each-ref", "--format=%(refname)", daeploy.PinPrefix)
	if err != nil {
		return nil, fmt.Errorf("list the pins of %s: %w", app, err)
	}
	var numbers []uint64
	for line := range strings.Lines(out) {
		name := strings.TrimPrefix(strings.TrimSuffix(line, "\n"), daeploy.PinPrefix)
		if n, err := strconv.ParseUint(name, 10, 64); err == nil {
			numbers = append(numbers, n)
		}
	}
	return numbers, nil
}

// explainMove finds out why git refused, by looking at the refs and not at
// git's words.
func (r *Repositories) explainMove(ctx context.Context, app daeploy.AppName, dir string, moves []daeploy.RefUpdate, cause error) error {
	for _, m := range moves {
		now, err := r.ref(ctx, dir, m.Ref)
		if err != nil {
			return errors.Join(cause, err)
		}
		if now != m.Old {
			return movedError(m.Ref, now, cause)
		}
		if m.New == "" {
			continue
		}
		if err := r.conflict(ctx, dir, m.Ref, moves, cause); err != nil {
			return err
		}
	}
	// git itself may not be able to read what a ref is to move to (F80).
	for _, m := range moves {
		if m.New == "" {
			continue
		}
		if err := r.git.start(ctx, command{}, "--git-dir="+dir, "cat-file", "-p", string(m.New)); err != nil {
			return damage(app, m.New, err)
		}
	}
	return fmt.Errorf("move refs of %s: %w", app, cause)
}

func movedError(ref string, now daeploy.Revision, cause error) error {
	name, at := daeploy.BranchName(ref), "moved to "+now.Short()
	if now == "" {
		at = "was deleted"
	}
	return &daeploy.Error{
		Kind: daeploy.TryAgain, Code: "ref_moved", Message: fmt.Sprintf("%s %s, fetch first", name, at),
		Hint: "git fetch, then push again", Err: cause,
	}
}

// conflict finds a ref, there already or moved along, that cannot stand beside
// ref (F33).
func (r *Repositories) conflict(ctx context.Context, dir, ref string, moves []daeploy.RefUpdate, cause error) error {
	out, err := r.git.run(ctx, nil, "--git-dir="+dir, "for-each-ref", "--format=%(refname)")
	if err != nil {
		return errors.Join(cause, err)
	}
	others := strings.Fields(out) // no ref name has white space
	for _, m := range moves {
		others = append(others, m.Ref)
	}
	for _, other := range others {
		if strings.HasPrefix(other, ref+"/") || strings.HasPrefix(ref, other+"/") {
			return &daeploy.Error{
				Kind: daeploy.Failure, Code: "ref_conflict",
				Message: fmt.Sprintf("%s and %s cannot both exist", daeploy.BranchName(ref), daeploy.BranchName(other)),
				Hint:    "delete or rename one of them", Err: cause,
			}
		}
	}
	return nil
}
