package gitreceive

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/daeploy/daeploy"
)

// maxAuthorityFile bounds the files of CAs and of what they revoked, in bytes.
const maxAuthorityFile = 4 << 20

// watchedFile is a file that is read again when it has changed. "" is empty.
type watchedFile struct {
	path string
	seen fileState
	when time.Time // it was read
}

// fileState is by what a change is seen: the file of a name, its time and size.
type fileState struct {
	inode, size uint64
	time        time.Time
	missing     bool
}

func stateOf(info fs.FileInfo, err error) fileState {
	if err != nil {
		return fileState{missing: true}
	}
	s := fileState{size: uint64(info.Size()), time: info.ModTime()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		s.inode = sys.Ino
	}
	return s
}

// changed also counts a file that was read right after a change: the next change
// can have the same time.
func (f *watchedFile) changed() bool {
	const tick = 2 * time.Second
	return f.path != "" && (f.when.Sub(f.seen.time) < tick || stateOf(os.Stat(f.path)) != f.seen)
}

// read wants a plain file that only its owner can write: who can write it is let
// in.
func (f *watchedFile) read() ([]byte, error) {
	if f.path == "" {
		return nil, nil
	}
	f.when = time.Now()
	file, err := os.OpenFile(f.path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		f.seen = stateOf(os.Stat(f.path))
		return nil, bare(err)
	}
	defer file.Close()
	info, err := file.Stat()
	f.seen = stateOf(info, err)
	switch {
	case err != nil:
		return nil, bare(err)
	case !info.Mode().IsRegular():
		return nil, errors.New("it is no plain file")
	case info.Mode().Perm()&0o022 != 0:
		return nil, errors.New("others than its owner can write it")
	}
	text, err := io.ReadAll(io.LimitReader(file, maxAuthorityFile+1))
	if err == nil && len(text) > maxAuthorityFile {
		err = fmt.Errorf("it has more than %d bytes", maxAuthorityFile)
	}
	return text, bare(err)
}

// bare is an error of the system without the path, which its reader knows.
func bare(err error) error {
	if e := new(fs.PathError); errors.As(err, &e) {
		return e.Err
	}
	return err
}

// parseAuthorities reads public keys, one a line, as sshd's TrustedUserCAKeys.
func parseAuthorities(text []byte) (map[daeploy.KeyID]bool, error) {
	trusted := map[daeploy.KeyID]bool{}
	err := eachLine(text, func(line string) error {
		key, problem := parseKeyLine(line)
		if problem != "" {
			return errors.New(problem)
		}
		trusted[key.ID] = true
		return nil
	})
	if err == nil && len(trusted) == 0 {
		err = errors.New("there is no key")
	}
	return trusted, err
}

// revocations are the certificates that are not accepted, whoever signed them.
type revocations struct {
	keys    map[daeploy.KeyID]bool // certified keys, and CAs
	ids     map[string]bool
	serials [][2]uint64 // from, to
}

func (r revocations) has(key daeploy.KeyID, c *daeploy.Certificate) bool {
	if r.keys[key] || r.keys[c.CA] || r.ids[revokedID(c.ID)] {
		return true
	}
	for _, s := range r.serials {
		if s[0] <= c.Serial && c.Serial <= s[1] {
			return true
		}
	}
	return false
}

// revokedID is a key id as it is compared: a line of the file cannot have blanks
// at its ends, the id of a certificate can.
func revokedID(id string) string { return strings.TrimSpace(plain(strings.TrimSpace(id), 255)) }

// parseRevocations reads what ssh-keygen -k reads to make a revocation list:
// "serial: 7", "serial: 7-12", "id: anna@laptop", "key: ssh-ed25519 AAAA...",
// "hash: SHA256:..."; a line without one of these words is a key.
func parseRevocations(text []byte) (revocations, error) {
	r := revocations{keys: map[daeploy.KeyID]bool{}, ids: map[string]bool{}}
	if bytes.HasPrefix(text, []byte("SSHKRL")) {
		return r, errors.New("it is a list made by ssh-keygen -k; give the text that it was made from")
	}
	return r, eachLine(text, func(line string) error { return r.add(line) })
}

func (r *revocations) add(line string) error {
	word, rest, found := strings.Cut(line, ":")
	rest = strings.TrimSpace(rest)
	switch strings.ToLower(word) {
	case "serial":
		return r.addSerials(rest)
	case "id":
		if rest == "" {
			return errors.New("id: is followed by no key id")
		}
		r.ids[revokedID(rest)] = true
		return nil
	case "hash":
		if len(rest) != len("SHA256:")+43 || !strings.HasPrefix(rest, "SHA256:") {
			return errors.New("hash: is followed by no SHA256 fingerprint")
		}
		r.keys[daeploy.KeyID(rest)] = true
		return nil
	case "key":
		if found {
			line = rest
		}
	}
	key, _, _, _, err := gossh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		return errors.New("this is no public key, and begins with none of the words serial, id, key and hash")
	}
	if cert, ok := key.(*gossh.Certificate); ok {
		key = cert.Key
	}
	r.keys[keyID(key)] = true
	return nil
}

func (r *revocations) addSerials(word string) error {
	from, to, ranged := strings.Cut(word, "-")
	if !ranged {
		to = from
	}
	first, err := strconv.ParseUint(strings.TrimSpace(from), 0, 64)
	last, err2 := strconv.ParseUint(strings.TrimSpace(to), 0, 64)
	if err != nil || err2 != nil || last < first {
		return errors.New("serial: is followed by no number such as 7, or range such as 7-12")
	}
	r.serials = append(r.serials, [2]uint64{first, last})
	return nil
}

// eachLine gives do the lines that are neither blank nor comments. The text of a
// private key is refused, and never repeated (F65).
func eachLine(text []byte, do func(line string) error) error {
	if bytes.Contains(text, []byte("PRIVATE KEY")) {
		return errors.New("there is a private key; it belongs to the CA alone, give its .pub")
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if err := do(line); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	return nil
}
