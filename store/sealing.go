package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"filippo.io/age"

	"github.com/daeploy/daeploy"
)

// maxKeyFile bounds the file of the key; an honest one has 200 bytes.
const maxKeyFile = 4 << 10

// place is what a secret is sealed together with: at another place in the
// database it opens nothing.
func place(app daeploy.AppName, name string) string { return string(app) + "/" + name + "\n" }

func seal(key *age.X25519Identity, place string, value []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := age.Encrypt(&out, key.Recipient())
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(append([]byte(place), value...)); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func unseal(key *age.X25519Identity, place string, sealed []byte) ([]byte, error) {
	r, err := age.Decrypt(bytes.NewReader(sealed), key)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	value, ok := bytes.CutPrefix(text, []byte(place))
	if !ok {
		return nil, errors.New("it was sealed for another place")
	}
	return value, nil
}

// sealingKey gives the key, and makes it if there is nothing that another one
// could have sealed. One that does not open the sample is refused: all secrets
// have the same key.
func (s *Store) sealingKey(known sample) (*age.X25519Identity, error) {
	key, err := s.readKey()
	if errors.Is(err, fs.ErrNotExist) && known.sealed == nil && s.makesKey {
		if key, err = makeKey(s.secretsKey); err == nil {
			s.log.Info("key of the secrets made")
		}
	}
	if err == nil && known.sealed != nil {
		if _, err = unseal(key, known.place, known.sealed); err != nil {
			err = fmt.Errorf("%s is not the key that the secrets were sealed with: %w", s.secretsKey, err)
		}
	}
	if err != nil {
		return nil, locked(err)
	}
	return key, nil
}

// readKey reads the key anew each time, so that one that was put back needs no
// restart. A file that others can read is refused.
func (s *Store) readKey() (*age.X25519Identity, error) {
	f, err := os.OpenFile(s.secretsKey, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0) // a FIFO must not hold us
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	owner := info.Sys().(*syscall.Stat_t).Uid
	switch {
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no plain file", s.secretsKey)
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("%s has mode %04o, so others than its owner can read it; chmod 600 it, and change the secrets", s.secretsKey, info.Mode().Perm())
	case owner != 0 && int(owner) != os.Geteuid():
		return nil, fmt.Errorf("%s belongs to uid %d; it must belong to root", s.secretsKey, owner)
	}
	keys, err := age.ParseIdentities(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return nil, fmt.Errorf("%s holds no key of age", s.secretsKey) // its text may be in the error
	}
	key, ok := keys[0].(*age.X25519Identity)
	if len(keys) != 1 || !ok {
		return nil, fmt.Errorf("%s must hold one key of kind X25519", s.secretsKey)
	}
	return key, nil
}

// makeKey makes a key that a power cut cannot undo once it is used.
func makeKey(path string) (*age.X25519Identity, error) {
	key, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, err
	}
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err := os.WriteFile(tmp, []byte(key.String()+"\n"), 0o600); err != nil {
		return nil, err
	}
	return key, settle(tmp, path)
}

// locked says that the secrets cannot be opened. The operator's log has the
// rest; a pusher is told no path of this host.
func locked(err error) error {
	problem := "their key cannot be used"
	switch {
	case errors.Is(err, fs.ErrNotExist):
		problem = "their key is missing"
	case errors.As(err, new(*age.NoIdentityMatchError)):
		problem = "the key is not theirs"
	}
	return &daeploy.Error{
		Kind: daeploy.Config, Code: "secrets_locked", Message: "the secrets on this server cannot be opened: " + problem,
		Hint: "the operator of this host can put the key back; without it, unset the secrets and set them anew", Err: err,
	}
}
