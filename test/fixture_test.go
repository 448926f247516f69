package test_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/daeploy/daeploy/container/containertest"
)

// doBuilder brings in a builder image: with the stock scripts, or with the
// files of a directory as they are.
func (t *teller) doBuilder(args []string) error {
	image := containertest.Image{Name: args[0], Shell: true, Layers: stockBuilder().Layers}
	if err := json.Unmarshal([]byte(args[1]), &image.Config); err != nil {
		return fmt.Errorf("config of %s: %w", image.Name, err)
	}
	if len(args) > 2 {
		files, err := filesBelow(t.path(args[2]))
		if err != nil {
			return err
		}
		image.Layers = [][]containertest.File{files}
	}
	return t.importImage(image)
}

// filesBelow reads a directory into a layer, parents first.
func filesBelow(dir string) (files []containertest.File, err error) {
	err = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		f := containertest.File{Path: strings.TrimPrefix(name, dir+"/"), Mode: info.Mode().Perm(), Dir: d.IsDir()}
		var content []byte
		switch info.Mode().Type() {
		case fs.ModeSymlink:
			f.Link, err = os.Readlink(name)
		case 0:
			content, err = os.ReadFile(name)
		}
		f.Content = string(content)
		files = append(files, f)
		return err
	})
	if err == nil && len(files) == 0 {
		err = errors.New("no files in " + dir)
	}
	return files, err
}
