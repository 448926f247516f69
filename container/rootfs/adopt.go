package rootfs

import (
	"context"
	"fmt"
	"os"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy"
)

// Adopt puts directory base of from, which is on the same file system, in place of
// whatever name is, as Replace puts an empty one there. Its files stay as they are, and
// from has it no more.
func (t *Tree) Adopt(ctx context.Context, name string, f daeploy.File, from *os.Root, base string) error {
	dir, last, err := t.parent(ctx, name, f)
	if err != nil {
		return fmt.Errorf("replace %s: %w", name, err)
	}
	n, err := t.mkdirBy(func(p string) error { return t.moveIn(from, base, p) }, dir, last, f)
	if err != nil {
		return fmt.Errorf("replace %s: %w", name, err)
	}
	return t.remember(name, n.path)
}

// moveIn renames by the handles of both directories: neither path can lead elsewhere.
func (t *Tree) moveIn(from *os.Root, base, p string) error {
	in, err := from.Open(".")
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := t.upper().Open(path.Dir(p))
	if err != nil {
		return err
	}
	defer out.Close()
	return os.NewSyscallError("renameat", unix.Renameat(int(in.Fd()), base, int(out.Fd()), path.Base(p)))
}

// Touch sets the times of files and links below a directory that Replace or Adopt has
// made; names are relative to it, and cheapest in the order of their directories. Those
// directories count as made by this tree: SetTimes comes to them.
func (t *Tree) Touch(name string, names []string, at time.Time) error {
	in, ok := t.freshDir(path.Clean("/" + name))
	if !ok {
		return fmt.Errorf("set times in %s: it was not made here", name)
	}
	var dir *os.File
	last := ""
	defer func() {
		if dir != nil {
			dir.Close()
		}
	}()
	for _, file := range names {
		parent := path.Dir(file)
		if dir == nil || parent != last {
			if dir != nil {
				dir.Close()
			}
			var err error
			if dir, err = in.root.Open(parent); err != nil {
				return fmt.Errorf("set times in %s: %w", name, err)
			}
			last = parent
			t.adopted(in.path, parent)
		}
		if err := utimens(dir, path.Base(file), at, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("set times of %s: %w", path.Join(name, file), err)
		}
	}
	return nil
}

func (t *Tree) freshDir(name string) (freshDir, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, d := range t.fresh {
		if d.name == name {
			return d, true
		}
	}
	return freshDir{}, false
}

// adopted notes dir, and the directories between it and top, as made by this tree.
func (t *Tree) adopted(top, dir string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for ; dir != "." && !t.made.has(path.Join(top, dir)); dir = path.Dir(dir) {
		t.made.add(path.Join(top, dir))
	}
}
