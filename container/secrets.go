package container

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy"
)

// insideSecrets is where a process finds its secrets (S74).
const insideSecrets = "/run/secrets"

// The way of a secret into a container (S40, S74): its value is written into a
// file on a tmpfs of the host, the runtime binds the file, and when the process
// runs the file is removed. From then on the value is in the container's mount
// namespace alone, and gone with it.

// CheckSecrets tells whether there is a place for secrets that is no disk; if
// not, an error of kind Config.
func (e *Engine) CheckSecrets() error {
	bad := func(err error) error {
		return &daeploy.Error{
			Kind: daeploy.Config, Code: "secrets_dir_unusable", Message: "this server has no place in memory for secrets",
			Hint: "ask its operator: secrets_dir must be a directory on a tmpfs, of root's alone", Err: err,
		}
	}
	dir := e.cfg.SecretsDir
	if dir == "" {
		return bad(errors.New("no directory is named"))
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return bad(err)
	}
	var on unix.Statfs_t
	if err := unix.Statfs(dir, &on); err != nil {
		return bad(os.NewSyscallError("statfs", err))
	}
	if on.Type != unix.TMPFS_MAGIC && on.Type != unix.RAMFS_MAGIC {
		return bad(fmt.Errorf("%s is not on a tmpfs", dir))
	}
	if err := os.Mkdir(e.secretsDir(), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return bad(err)
	}
	info, err := os.Lstat(e.secretsDir())
	if err != nil {
		return bad(err)
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; info.Mode() != fs.ModeDir|0o700 || int(owner) != os.Geteuid() {
		return bad(fmt.Errorf("%s has mode %v and uid %d", e.secretsDir(), info.Mode(), owner))
	}
	return nil
}

// secretsDir is this daemon's own, since daemons that share a host name their
// builds alike.
func (e *Engine) secretsDir() string { return filepath.Join(e.cfg.SecretsDir, e.cfg.Owner) }

func (b *box) secretsDir() string { return filepath.Join(b.engine.secretsDir(), b.name) }

// bindSecrets lets the sandbox bind the process's secrets, which dropSecrets is
// to remove from the host once it runs, or does not.
func (b *box) bindSecrets(s *sandbox, secrets map[string][]byte) error {
	if len(secrets) == 0 {
		return nil
	}
	if err := b.engine.CheckSecrets(); err != nil {
		return err
	}
	if err := b.dropSecrets(); err != nil {
		return err
	}
	if err := os.Mkdir(b.secretsDir(), 0o700); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(secrets)) {
		if err := daeploy.CheckSecret(name, secrets[name]); err != nil {
			return err
		}
		file := filepath.Join(b.secretsDir(), name)
		if err := writeSecret(file, secrets[name], s.ids.host(s.user)); err != nil {
			return fmt.Errorf("write secret %s: %w", name, err)
		}
		s.secrets = append(s.secrets, [2]string{file, path.Join(insideSecrets, name)})
	}
	return nil
}

// writeSecret makes a file that its owner alone may read.
func writeSecret(name string, value []byte, owner daeploy.Owner) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o400)
	if err != nil {
		return err
	}
	_, err = f.Write(value)
	return errors.Join(err, f.Chown(int(owner.UID), int(owner.GID)), f.Chmod(0o400), f.Close())
}

// dropSecrets removes the files from the host. What a process has, it keeps.
func (b *box) dropSecrets() error {
	if b.engine.cfg.SecretsDir == "" {
		return nil
	}
	return os.RemoveAll(b.secretsDir())
}
