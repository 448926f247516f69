// Package backup is the file that a backup is: a tar archive, compressed by
// gzip, that any tar can open.
//
//	manifest.json                  what the archive is (Manifest)
//	state/...                      files of the state directory
//	config/daeploy.toml            the daemon's configuration, if it had a file
//	SHA256SUMS                     of all files before it, as sha256sum -c reads it
//
// The last entry is what tells a whole archive from one that was cut off. Write
// and Read hold about a hundred bytes for each file in memory, and of the files
// themselves one small buffer.
package backup

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/daeploy/daeploy"
)

// format is the version of what the package comment draws. A reader refuses
// every other one.
const format = 1

const (
	manifestName = "manifest.json"
	stateDir     = "state/"
	configName   = "config/daeploy.toml"
	sumsName     = "SHA256SUMS"
)

// Manifest is the first entry of an archive. Its fields are what `restore
// --json` prints.
type Manifest struct {
	Format   int       `json:"format" doc:"of the archive; 1"`
	Version  string    `json:"version" doc:"of the daemon that wrote it"`
	Instance string    `json:"instance" doc:"id of the database"`
	Schema   uint64    `json:"schema" doc:"of the database"`
	Created  time.Time `json:"created" doc:"the moment that the archive shows"`
	Files    int       `json:"files" doc:"how many files and directories the archive has at most"`
	Bytes    int64     `json:"bytes" doc:"bytes of these files at most, unpacked"`
}

// Write writes the archive of files, whose names are below the state
// directory, and of the configuration, the path of a file or "". Format, Files
// and Bytes of m are filled in. A log that is gone by now is left out; any other
// file that cannot be read as far as its Size says ends it.
func Write(ctx context.Context, w io.Writer, m Manifest, files []daeploy.StateFile, config string) error {
	all := make([]daeploy.StateFile, 0, len(files)+1)
	if config != "" {
		file, err := configuration(config)
		if err != nil {
			return fmt.Errorf("read the configuration: %w", err)
		}
		all = append(all, file)
	}
	for _, f := range files {
		f.Name = stateDir + f.Name
		all = append(all, f)
	}
	m.Format, m.Files = format, len(all)
	for _, f := range all {
		m.Bytes += f.Size
	}
	zip, err := gzip.NewWriterLevel(w, gzip.BestSpeed) // packs do not become smaller
	if err != nil {
		return err
	}
	a := &writer{tar: tar.NewWriter(zip), time: m.Created}
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	if err := a.add(manifestName, int64(len(text)), bytes.NewReader(text)); err != nil {
		return err
	}
	for _, f := range all {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := a.addFile(f); err != nil {
			return err
		}
	}
	sums := a.sums.Bytes()
	return errors.Join(a.add(sumsName, int64(len(sums)), bytes.NewReader(sums)), a.tar.Close(), zip.Close())
}

// configuration finds the file behind a path. It is the operator's own, and may be
// a link; nothing below the state directory is.
func configuration(name string) (daeploy.StateFile, error) {
	file, err := filepath.EvalSymlinks(name)
	if err != nil {
		return daeploy.StateFile{}, err
	}
	info, err := os.Stat(file)
	if err != nil {
		return daeploy.StateFile{}, err
	}
	return daeploy.StateFile{Name: configName, Path: file, Size: info.Size()}, nil
}

type writer struct {
	tar  *tar.Writer
	time time.Time
	sums bytes.Buffer
}

func (a *writer) addFile(f daeploy.StateFile) error {
	if strings.HasSuffix(f.Name, "/") {
		return a.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: f.Name, Mode: 0o700, ModTime: a.time, Format: tar.FormatPAX})
	}
	// Somebody may have put something else in its place, which must not hold us.
	file, err := os.OpenFile(f.Path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(f.Name, stateDir+"logs/") {
		return nil
	}
	if err != nil {
		return fmt.Errorf("back %s up: %w", f.Name, err)
	}
	defer file.Close()
	if err := a.add(f.Name, f.Size, file); err != nil {
		return fmt.Errorf("back %s up: %w", f.Name, err)
	}
	return nil
}

// add writes one file of size bytes; what r has more is left.
func (a *writer) add(name string, size int64, r io.Reader) error {
	err := a.tar.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o600, ModTime: a.time.Truncate(time.Second), Format: tar.FormatPAX,
	})
	if err != nil {
		return err
	}
	sum := sha256.New()
	if _, err := io.CopyN(io.MultiWriter(a.tar, sum), r, size); err != nil {
		return err
	}
	sumLine(&a.sums, sum.Sum(nil), name)
	return nil
}

// sumLine is a line as sha256sum writes it. No name needs its escapes: Read
// takes none with a backslash or control character.
func sumLine(w *bytes.Buffer, sum []byte, name string) {
	w.WriteString(hex.EncodeToString(sum) + "  " + name + "\n")
}
