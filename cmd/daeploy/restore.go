package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/backup"
	"github.com/daeploy/daeploy/control"
	"github.com/daeploy/daeploy/store"
)

// restore is `restore FILE`: it makes a state directory of a backup. Everything
// is read and checked beside the place it belongs to, and comes there by one
// rename, so that there is all of it or nothing.
func restore(ctx context.Context, words []string, std streams) error {
	var set control.Restore
	set.StateDir = configuredStateDir()
	flags := flag.NewFlagSet("restore", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	set.Declare(flags)
	name, err := oneFile(flags, words)
	if err != nil {
		return err
	}
	dir, err := filepath.Abs(set.StateDir)
	if err != nil {
		return err
	}
	if err := vacant(dir); err != nil {
		return err
	}
	if set.ConfigOut != "" {
		if _, err := os.Lstat(set.ConfigOut); !errors.Is(err, fs.ErrNotExist) {
			return occupied(set.ConfigOut)
		}
	}
	in := io.Reader(std.in)
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return &daeploy.Error{Kind: daeploy.Failure, Code: "file_unreadable", Message: err.Error()}
		}
		defer file.Close()
		in = file
	}
	read, err := restoreTo(ctx, dir, in, set)
	if err != nil {
		return err
	}
	return toldRestored(read, dir, set, std)
}

// oneFile parses flags that may stand on both sides of the one argument.
func oneFile(flags *flag.FlagSet, words []string) (name string, err error) {
	for err = flags.Parse(words); err == nil && flags.NArg() > 0; err = flags.Parse(flags.Args()[1:]) {
		if name != "" {
			err = fmt.Errorf("%q is one argument too many", flags.Arg(0))
			break
		}
		name = flags.Arg(0)
	}
	if err == nil && name == "" {
		err = errors.New("restore wants a file")
	}
	if err != nil {
		return "", &daeploy.Error{Kind: daeploy.Usage, Code: "usage", Message: err.Error(), Hint: "daeploy help " + flags.Name()}
	}
	return name, nil
}

// configuredStateDir is where the daemon of this host keeps its state, as far
// as its usual configuration can be read.
func configuredStateDir() string {
	c := defaultConfig()
	if err := c.load(defaultConfigFile); err != nil {
		return defaultConfig().StateDir
	}
	return c.StateDir
}

// vacant refuses a directory that has anything in it: nothing is overwritten.
func vacant(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, syscall.ENOTDIR), len(entries) > 0:
		return occupied(dir)
	}
	return err
}

func occupied(name string) error {
	return &daeploy.Error{
		Kind: daeploy.Failure, Code: "file_exists", Message: fmt.Sprintf("there is something at %s already; nothing was restored", name),
		Hint: fmt.Sprintf("stop the daemon, then:  mv %s %s.old", name, name),
	}
}

// restoreTo reads a backup into dir, which is missing or empty.
func restoreTo(ctx context.Context, dir string, in io.Reader, set control.Restore) (read *backup.Reader, err error) {
	work := dir + ".restoring"
	if err := os.MkdirAll(work, 0o700); err != nil {
		return nil, fmt.Errorf("make a directory beside the state: %w", err)
	}
	lock, err := store.Lock(ctx, work)
	if err != nil {
		return nil, err
	}
	defer lock.Close() // a daemon that starts meanwhile waits for it
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(work))
		}
	}()
	if err := emptied(work); err != nil {
		return nil, err
	}
	if read, err = unpack(ctx, work, in, set.Drained); err != nil {
		return nil, err
	}
	if set.ConfigOut != "" {
		if err := writeNew(set.ConfigOut, read.Config); err != nil {
			return nil, err
		}
	}
	if err := settle(work, dir); err != nil {
		if set.ConfigOut != "" {
			err = errors.Join(err, os.Remove(set.ConfigOut))
		}
		return nil, err
	}
	return read, nil
}

// emptied removes what a restore that was cut off has left, but for the lock.
func emptied(dir string) error {
	if err := os.Chmod(dir, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if e.Name() != store.LockFile {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

// unpack reads and checks all of a backup. Nothing of it has its name yet.
func unpack(ctx context.Context, work string, in io.Reader, drained bool) (*backup.Reader, error) {
	read, err := backup.Read(in)
	if err != nil {
		return nil, err
	}
	if m := read.Manifest; m.Schema > store.Schema() {
		return nil, &daeploy.Error{
			Kind: daeploy.Config, Code: "backup_newer", Message: fmt.Sprintf("daeploy %s, which is newer than this one, has written the backup", m.Version),
			Hint: "install that version, or a newer one, and try again",
		}
	}
	if err := roomFor(read.Manifest, work); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(work)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	if err := read.Extract(ctx, root); err != nil {
		return nil, err
	}
	if err := checkRestored(ctx, work, read.Manifest); err != nil {
		return nil, err
	}
	if drained {
		if err := store.Drain(work); err != nil {
			return nil, err
		}
	}
	disk, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	return read, errors.Join(os.NewSyscallError("syncfs", unix.Syncfs(int(disk.Fd()))), disk.Close())
}

func roomFor(m backup.Manifest, dir string) error {
	var disk unix.Statfs_t
	if err := unix.Statfs(dir, &disk); err != nil {
		return os.NewSyscallError("statfs", err)
	}
	if free := int64(disk.Bavail) * disk.Bsize; m.Bytes > free {
		return &daeploy.Error{
			Kind: daeploy.Failure, Code: "disk_full", Message: fmt.Sprintf("the backup needs %d MiB, and %s has %d free", m.Bytes>>20, dir, free>>20),
			Hint: "make room, or name another --state-dir",
		}
	}
	return nil
}

// checkRestored looks the database through as the daemon does at its start.
func checkRestored(ctx context.Context, work string, m backup.Manifest) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find our own program: %w", err)
	}
	err = verifyBy(self)(ctx, filepath.Join(work, "daeploy.db"))
	if err == nil {
		err = store.Belongs(work, m.Instance)
	}
	if err != nil && ctx.Err() == nil {
		err = &daeploy.Error{
			Kind: daeploy.Failure, Code: "backup_invalid", Message: fmt.Sprintf("the backup cannot be used: its database: %v", err),
			Hint: "take another one; nothing was restored",
		}
	}
	return err
}

// writeNew writes a file that must not be there.
func writeNew(name string, content []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return unwritable(err)
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return unwritable(errors.Join(err, os.Remove(name)))
	}
	return nil
}

// settle gives the state its name.
func settle(work, dir string) error {
	err := os.Rename(work, dir)
	switch {
	case errors.Is(err, syscall.ENOTEMPTY), errors.Is(err, fs.ErrExist):
		return occupied(dir)
	case errors.Is(err, syscall.EBUSY), errors.Is(err, syscall.EXDEV):
		return &daeploy.Error{
			Kind: daeploy.Failure, Code: "file_unwritable", Message: dir + " is a mount point, which a restore cannot take the place of",
			Hint: fmt.Sprintf("use a directory in it:  --state-dir %s/state, and the same as state_dir in the configuration", dir),
		}
	case err != nil:
		return err
	}
	return backup.SyncDir(filepath.Dir(dir))
}

func toldRestored(read *backup.Reader, dir string, set control.Restore, std streams) error {
	m := read.Manifest
	if set.JSON {
		out := json.NewEncoder(std.out)
		out.SetIndent("", "  ")
		return out.Encode(m)
	}
	fmt.Fprintf(std.out, "restored %s as of %s, from daeploy %s\n", dir, m.Created.Format("2006-01-02 15:04:05 UTC"), m.Version)
	if read.Config != nil && set.ConfigOut == "" {
		fmt.Fprintf(std.err, "the configuration stays in the backup: --config-out FILE writes it, or  tar -xzOf BACKUP config/daeploy.toml\n")
	}
	fmt.Fprintf(std.err, "images are not in a backup: a push makes an app's next one\nhint: start the daemon:  systemctl start daeploy\n")
	return nil
}
