package builderimage

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/daeploy/daeploy"
)

// filesDir is where a recipe keeps further files of the image, each at its path
// in the image.
const filesDir = "files"

// recipeFiles are the files of a recipe; there may be none.
type recipeFiles struct {
	root *os.Root // nil = none
}

// openFiles opens dir/files. A missing directory is one without files.
func openFiles(dir string) (*recipeFiles, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open the recipe's directory: %w", err)
	}
	defer root.Close()
	info, err := root.Lstat(filesDir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &recipeFiles{}, nil
	case err != nil:
		return nil, fmt.Errorf("look at the recipe's files: %w", err)
	case !info.IsDir():
		return nil, scriptError(nil, "%s is no directory", filesDir)
	}
	files, err := root.OpenRoot(filesDir)
	if err != nil {
		return nil, fmt.Errorf("open the recipe's files: %w", err)
	}
	return &recipeFiles{files}, nil
}

// Close releases the directory.
func (f *recipeFiles) Close() error {
	if f.root == nil {
		return nil
	}
	return f.root.Close()
}

// each hands every file to add, sorted by path: mode 0755 if it is executable
// for its owner, else 0644, owner 0:0, a link as a link. Directories are left
// to add. What the host's umask and the checkout's owner would change is not
// taken over.
func (f *recipeFiles) each(add func(tar.Header, io.Reader) error) error {
	if f.root == nil {
		return nil
	}
	return fs.WalkDir(f.root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return fmt.Errorf("read the recipe's files: %w", err)
		case d.IsDir():
			return nil
		case d.Type() == fs.ModeSymlink:
			to, err := f.root.Readlink(name)
			if err != nil {
				return fmt.Errorf("read %s/%s: %w", filesDir, name, err)
			}
			return add(tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to, Mode: 0o777}, nil)
		case !d.Type().IsRegular():
			return daeploy.Errorf(daeploy.Invalid, "recipe_invalid", "%s/%s is neither a file nor a link", filesDir, name)
		}
		return f.add(name, add)
	})
}

func (f *recipeFiles) add(name string, add func(tar.Header, io.Reader) error) error {
	file, err := f.root.Open(name)
	if err != nil {
		return fmt.Errorf("open %s/%s: %w", filesDir, name, err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("look at %s/%s: %w", filesDir, name, err)
	}
	h := tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: info.Size()}
	if info.Mode()&0o100 != 0 {
		h.Mode = 0o755
	}
	return add(h, file)
}
