package backup

import (
	"errors"
	"os"
	"path/filepath"
)

// PutInPlace gives a complete file its name, once it is on the disk, and returns when
// the name is there too. What fails before leaves what had the name as it is.
func PutInPlace(file *os.File, name string) error {
	if err := file.Sync(); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), name); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(name))
}

// SyncDir returns when the names in a directory are on the disk.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
