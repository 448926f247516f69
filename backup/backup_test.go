package backup_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/backup"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// state is a small state directory, and what a backup is to hold of it.
func state(t testing.TB) (files []daeploy.StateFile, config string, want map[string]string) {
	t.Helper()
	dir := t.TempDir()
	want = map[string]string{
		"daeploy.db": "records", "logs/blog/1.log": "what it said", "repositories/blog.git/HEAD": "ref: refs/heads/main\n", "empty": "",
	}
	for name, text := range want {
		path := filepath.Join(dir, strings.ReplaceAll(name, "/", "-"))
		must(t, os.WriteFile(path, []byte(text+"and what came later"), 0o644))
		files = append(files, daeploy.StateFile{Name: name, Path: path, Size: int64(len(text))})
	}
	config = filepath.Join(dir, "config")
	must(t, os.WriteFile(config, []byte("max_builds = 3\n"), 0o600))
	return append(files, daeploy.StateFile{Name: "repositories/blog.git/refs/"}), config, want
}

var made = backup.Manifest{Version: "0.1.0", Instance: "abc", Schema: 3, Created: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}

// archive makes a backup of state.
func archive(t testing.TB) (text []byte, want map[string]string) {
	t.Helper()
	files, config, want := state(t)
	var b bytes.Buffer
	must(t, backup.Write(t.Context(), &b, made, files, config))
	return b.Bytes(), want
}

// restore reads an archive into a new directory.
func restore(ctx context.Context, t testing.TB, in io.Reader) (*backup.Reader, string, error) {
	t.Helper()
	a, err := backup.Read(in)
	if err != nil {
		return nil, "", err
	}
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	must(t, err)
	defer root.Close()
	return a, dir, a.Extract(ctx, root)
}

// content reads all files below dir, and checks that they are their owner's.
func content(t *testing.T, dir string) map[string]string {
	t.Helper()
	got := map[string]string{}
	must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := e.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		if err != nil || e.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		rel, _ := filepath.Rel(dir, path)
		got[rel] = string(text)
		return err
	}))
	return got
}

// F129: what comes out is what went in, as far as its sizes say.
func TestRoundTrip(t *testing.T) {
	text, want := archive(t)
	a, dir, err := restore(t.Context(), t, bytes.NewReader(text))
	must(t, err)
	if diff := cmp.Diff(want, content(t, dir)); diff != "" {
		t.Errorf("restored (-want +got):\n%s", diff)
	}
	if info, err := os.Stat(filepath.Join(dir, "repositories/blog.git/refs")); err != nil || !info.IsDir() {
		t.Errorf("the empty directory: %v", err)
	}
	if string(a.Config) != "max_builds = 3\n" {
		t.Errorf("configuration %q", a.Config)
	}
	m := made
	m.Format, m.Files, m.Bytes = 1, 6, int64(len("recordswhat it saidref: refs/heads/main\nmax_builds = 3\n"))
	if diff := cmp.Diff(m, a.Manifest); diff != "" {
		t.Errorf("manifest (-want +got):\n%s", diff)
	}
}

// F129: an archive that was cut off at any byte, or changed at any, is refused.
func TestDamage(t *testing.T) {
	text, want := archive(t)
	for n := range text {
		_, _, err := restore(t.Context(), t, bytes.NewReader(text[:n]))
		refused(t, err, "cut off at", n)
		changed := bytes.Clone(text)
		changed[n] ^= 0x10
		_, dir, err := restore(t.Context(), t, bytes.NewReader(changed))
		if err != nil {
			refused(t, err, "changed at", n)
			continue
		}
		// gzip has a time in its head, and more than one way to say the same.
		if diff := cmp.Diff(want, content(t, dir)); diff != "" {
			t.Errorf("changed at %d, and restored (-want +got):\n%s", n, diff)
		}
	}
	_, _, err := restore(t.Context(), t, io.MultiReader(bytes.NewReader(text), strings.NewReader("more")))
	refused(t, err, "longer than", len(text))
	t.Attr("F129", "a backup cut at every byte and flipped at every byte: refused")
}

func refused(t *testing.T, err error, how string, n int) {
	t.Helper()
	var e *daeploy.Error
	if !errors.As(err, &e) || e.Kind != daeploy.Failure || e.Code != "backup_invalid" || e.Hint == "" {
		t.Errorf("%s %d: %v; want it refused", how, n, err)
	}
}

// A log may go between the listing and the reading, because its app was
// deleted; nothing else may, and nothing may become shorter.
func TestFilesThatGo(t *testing.T) {
	files, config, want := state(t)
	for _, f := range files {
		if f.Name == "logs/blog/1.log" {
			must(t, os.Remove(f.Path))
		}
	}
	var b bytes.Buffer
	must(t, backup.Write(t.Context(), &b, made, files, config))
	_, dir, err := restore(t.Context(), t, &b)
	must(t, err)
	delete(want, "logs/blog/1.log")
	if diff := cmp.Diff(want, content(t, dir)); diff != "" {
		t.Errorf("restored (-want +got):\n%s", diff)
	}
	for i, f := range files {
		if f.Name == "daeploy.db" {
			files[i].Size = 1 << 20
		}
	}
	if err := backup.Write(t.Context(), io.Discard, made, files, config); err == nil || !strings.Contains(err.Error(), "state/daeploy.db") {
		t.Errorf("a file that became shorter: %v", err)
	}
	if err := backup.Write(t.Context(), io.Discard, made, files, config+".gone"); err == nil {
		t.Error("a configuration that is gone was backed up")
	}
}

// The operator's own configuration may be a link, to one below /etc for all hosts.
func TestConfigurationIsLink(t *testing.T) {
	files, config, _ := state(t)
	link := filepath.Join(t.TempDir(), "daeploy.toml")
	must(t, os.Symlink(config, link))
	var b bytes.Buffer
	must(t, backup.Write(t.Context(), &b, made, files, link))
	a, _, err := restore(t.Context(), t, &b)
	must(t, err)
	if string(a.Config) != "max_builds = 3\n" {
		t.Errorf("configuration %q", a.Config)
	}
}

// TestEnds: both ways end with their ctx.
func TestEnds(t *testing.T) {
	text, _ := archive(t)
	files, config, _ := state(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(daeploy.ErrShutdown)
	if err := backup.Write(ctx, io.Discard, made, files, config); !errors.Is(err, daeploy.ErrShutdown) {
		t.Errorf("Write: %v", err)
	}
	if _, _, err := restore(ctx, t, bytes.NewReader(text)); !errors.Is(err, daeploy.ErrShutdown) {
		t.Errorf("Extract: %v", err)
	}
}

// forge makes an archive with entries of a stranger's.
func forge(t testing.TB, manifest string, entries ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	zip := gzip.NewWriter(&b)
	w := tar.NewWriter(zip)
	must(t, w.WriteHeader(&tar.Header{Name: "manifest.json", Size: int64(len(manifest)), Mode: 0o600}))
	_, err := io.WriteString(w, manifest)
	must(t, err)
	for _, h := range entries {
		must(t, w.WriteHeader(&h))
		if h.Typeflag == tar.TypeReg || h.Typeflag == 0 {
			_, err := w.Write(bytes.Repeat([]byte("x"), int(h.Size)))
			must(t, err)
		}
	}
	must(t, errors.Join(w.Close(), zip.Close()))
	return b.Bytes()
}

const roomy = `{"format":1,"files":100,"bytes":1000}`

// TestStrangers: nothing is written outside, and nothing but files.
func TestStrangers(t *testing.T) {
	tests := map[string][]byte{
		"other format":       forge(t, `{"format":2}`),
		"no manifest":        forge(t, `not one`),
		"below zero":         forge(t, `{"format":1,"files":-1}`),
		"escape in version":  forge(t, `{"format":1,"version":"1\u001b[2J"}`),
		"endless version":    forge(t, `{"format":1,"version":"`+strings.Repeat("1", 1000)+`"}`),
		"newline in id":      forge(t, `{"format":1,"instance":"a\nb"}`),
		"no sums":            forge(t, roomy, tar.Header{Name: "state/a", Size: 1}),
		"wrong sums":         forge(t, roomy, tar.Header{Name: "state/a", Size: 1}, tar.Header{Name: "SHA256SUMS", Size: 156}),
		"up":                 forge(t, roomy, tar.Header{Name: "state/../../a", Size: 1}),
		"absolute":           forge(t, roomy, tar.Header{Name: "/state/a", Size: 1}),
		"elsewhere":          forge(t, roomy, tar.Header{Name: "etc/passwd", Size: 1}),
		"link":               forge(t, roomy, tar.Header{Name: "state/a", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}),
		"hard link":          forge(t, roomy, tar.Header{Name: "state/a", Typeflag: tar.TypeLink, Linkname: "state/b"}),
		"device":             forge(t, roomy, tar.Header{Name: "state/a", Typeflag: tar.TypeChar}),
		"fifo":               forge(t, roomy, tar.Header{Name: "state/a", Typeflag: tar.TypeFifo}),
		"twice":              forge(t, roomy, tar.Header{Name: "state/a", Size: 1}, tar.Header{Name: "state/a", Size: 1}),
		"below a file":       forge(t, roomy, tar.Header{Name: "state/a", Size: 1}, tar.Header{Name: "state/a/b", Size: 1}),
		"directory on file":  forge(t, roomy, tar.Header{Name: "state/a", Size: 1}, tar.Header{Name: "state/a/", Typeflag: tar.TypeDir}),
		"the state itself":   forge(t, roomy, tar.Header{Name: "state/", Typeflag: tar.TypeDir}),
		"newline":            forge(t, roomy, tar.Header{Name: "state/a\nb", Size: 1}),
		"long name":          forge(t, roomy, tar.Header{Name: "state/" + strings.Repeat("a/", 600) + "b", Size: 1}),
		"too large":          forge(t, roomy, tar.Header{Name: "state/a", Size: 1001}),
		"too large together": forge(t, roomy, tar.Header{Name: "state/a", Size: 600}, tar.Header{Name: "state/b", Size: 600}),
		"too many":           forge(t, `{"format":1,"files":1,"bytes":9}`, tar.Header{Name: "state/a"}, tar.Header{Name: "state/b"}),
		"sums as link":       forge(t, roomy, tar.Header{Name: "SHA256SUMS", Typeflag: tar.TypeSymlink, Linkname: "a"}),
		"sparse": forge(t, roomy, tar.Header{
			Name: "state/a", Size: 1, Format: tar.FormatPAX, PAXRecords: map[string]string{"GNU.sparse.dummy": "1"},
		}),
		"no archive": []byte("PK\x03\x04"),
		"nothing":    nil,
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			_, _, err := restore(t.Context(), t, bytes.NewReader(text))
			refused(t, err, name, 0)
		})
	}
}

// FuzzRead: no bytes make the reader panic or write outside of its directory.
// The fuzzer forges the tar archive, which gzip would
// hide from it.
func FuzzRead(f *testing.F) {
	text, _ := archive(f)
	for _, seed := range [][]byte{
		text, forge(f, roomy, tar.Header{Name: "state/../a", Size: 1}), forge(f, roomy, tar.Header{Name: "state/a", Typeflag: tar.TypeSymlink, Linkname: "/"}),
	} {
		zip, err := gzip.NewReader(bytes.NewReader(seed))
		must(f, err)
		plain, err := io.ReadAll(zip)
		must(f, err)
		f.Add(plain)
	}
	f.Fuzz(func(t *testing.T, plain []byte) {
		var b bytes.Buffer
		zip, err := gzip.NewWriterLevel(&b, gzip.NoCompression)
		must(t, err)
		_, err = zip.Write(plain)
		must(t, errors.Join(err, zip.Close()))
		a, err := backup.Read(&b)
		if err != nil {
			return
		}
		outer := t.TempDir()
		must(t, os.Mkdir(filepath.Join(outer, "state"), 0o700))
		root, err := os.OpenRoot(filepath.Join(outer, "state"))
		must(t, err)
		defer root.Close()
		_ = a.Extract(t.Context(), root) // what it is, others look at
		if entries, err := os.ReadDir(outer); err != nil || len(entries) != 1 {
			t.Errorf("there is more than the state: %v, %v", entries, err)
		}
	})
}
