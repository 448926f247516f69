package gitreceive

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	gossh "golang.org/x/crypto/ssh"

	"github.com/daeploy/daeploy"
)

const (
	hostKeyFile   = "ssh_host_ed25519_key"
	hostKeyMarker = "ssh_host_ed25519_key.made" // says that there was a key: its fingerprint
)

// HostKey is what the server proves itself with.
type HostKey struct {
	signer gossh.Signer
}

// Fingerprint is the "SHA256:..." form that ssh shows at a first connection.
func (k *HostKey) Fingerprint() string { return gossh.FingerprintSHA256(k.signer.PublicKey()) }

// Public is the key as known_hosts writes it after the host names.
func (k *HostKey) Public() string {
	return strings.TrimSpace(string(gossh.MarshalAuthorizedKey(k.signer.PublicKey())))
}

// OpenHostKey reads the host key in dir and makes it, 0600, at the first
// start. A file beside it remembers that there was one: afterwards a key that is
// missing, broken or readable by others is an error of kind Config whose hint
// is the mending command; a silently new key would look like an attack to every
// client (F56).
func OpenHostKey(dir string) (*HostKey, error) {
	file, marker := filepath.Join(dir, hostKeyFile), filepath.Join(dir, hostKeyMarker)
	info, err := os.Lstat(file)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(marker); !errors.Is(err, fs.ErrNotExist) {
			return nil, hostKeyError(err, "missing", "restore %s from a backup; or, if it is lost for good: rm %s", file, marker)
		}
		if err := makeHostKey(file); err != nil {
			return nil, hostKeyError(err, "not writable", "make %s writable for the daemon", dir)
		}
		info, err = os.Lstat(file)
	}
	switch {
	case err != nil:
		return nil, hostKeyError(err, "unreadable", "chmod 0600 %s", file)
	case !info.Mode().IsRegular():
		return nil, hostKeyError(nil, "not a plain file", "ls -l %s", file)
	case info.Mode().Perm()&0o077 != 0:
		return nil, hostKeyError(nil, "open to other users", "chmod 0600 %s", file)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, hostKeyError(err, "unreadable", "chmod 0600 %s", file)
	}
	signer, err := gossh.ParsePrivateKey(text)
	if err != nil || signer.PublicKey().Type() != gossh.KeyAlgoED25519 {
		return nil, hostKeyError(err, "broken", "restore %s from a backup; or, if it is lost for good: rm %s %s", file, file, marker)
	}
	key := &HostKey{signer}
	// Looked at at each start: whoever brought the key along from another host gets
	// the marker too. A full disk is no reason not to start.
	mark := key.Fingerprint() + "\n"
	if have, err := os.ReadFile(marker); err == nil && string(have) == mark {
		return key, nil
	}
	if err := writeFile(marker, []byte(mark), 0o600); err != nil {
		return nil, hostKeyError(err, "not markable", "make %s writable for the daemon", dir)
	}
	return key, nil
}

func makeHostKey(file string) error {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	block, err := gossh.MarshalPrivateKey(private, "daeploy")
	if err != nil {
		return err
	}
	return writeFile(file, pem.EncodeToMemory(block), 0o600)
}

func hostKeyError(err error, what, hint string, args ...any) error {
	return &daeploy.Error{
		Kind: daeploy.Config, Code: "host_key", Message: "the SSH host key is " + what,
		Hint: fmt.Sprintf(hint, args...), Err: err,
	}
}

// writeFile puts a file in place as a whole: after a crash there is the old
// one, the new one or none, never a part.
func writeFile(path string, content []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
