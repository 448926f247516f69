package backup_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/daeploy/daeploy/backup"
)

// A file that does not get to the disk does not get its name either, and what had
// that name stays.
func TestPutInPlace(t *testing.T) {
	dir := t.TempDir()
	tmp, name := filepath.Join(dir, "unfinished"), filepath.Join(dir, "backup.tar.gz")
	for path, text := range map[string]string{tmp: "new", name: "old"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var pipe [2]int
	if err := syscall.Pipe(pipe[:]); err != nil {
		t.Fatal(err)
	}
	defer os.NewFile(uintptr(pipe[0]), "reading end").Close()
	broken := os.NewFile(uintptr(pipe[1]), tmp) // no pipe can be synced
	defer broken.Close()
	if err := backup.PutInPlace(broken, name); err == nil {
		t.Error("a file that cannot be synced was put in place")
	}
	if text, err := os.ReadFile(name); err != nil || string(text) != "old" {
		t.Errorf("the older file is %q now (%v)", text, err)
	}
	whole, err := os.Open(tmp)
	if err != nil {
		t.Fatal(err)
	}
	defer whole.Close()
	if err := backup.PutInPlace(whole, name); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(name); err != nil || string(text) != "new" {
		t.Errorf("the file is %q (%v); want the new one", text, err)
	}
	if _, err := os.Stat(tmp); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the other name is still there (%v)", err)
	}
}
