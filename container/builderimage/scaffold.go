package builderimage

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"text/template"

	"github.com/daeploy/daeploy"
)

//go:embed all:scaffold
var scaffold embed.FS

// Scaffold writes the beginning of a builder named name into dir, which is made
// if need be: a recipe, a Dockerfile, the scripts, a test and an app to try
// (S56). It returns the files it wrote, and writes none if one of them is there
// already.
func Scaffold(dir string, name daeploy.ImageRef) (files []string, err error) {
	short := path.Base(string(name))
	short, _, _ = strings.Cut(short, ":")
	contents := map[string][]byte{}
	err = fs.WalkDir(scaffold, "scaffold", func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		t, err := template.ParseFS(scaffold, file)
		if err != nil {
			return err
		}
		var text bytes.Buffer
		if err := t.Execute(&text, struct{ Name, Image string }{short, string(name)}); err != nil {
			return err
		}
		file = strings.TrimPrefix(file, "scaffold/")
		files, contents[file] = append(files, file), text.Bytes()
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("fill the scaffold in: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, scaffoldError(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, scaffoldError(err)
	}
	defer root.Close()
	for _, file := range files {
		// A link that leads out, or a file where a directory has to be, is in the
		// way too.
		if _, err := root.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
			return nil, &daeploy.Error{
				Kind: daeploy.Failure, Code: "file_exists", Err: err,
				Message: fmt.Sprintf("there is something at %s already; nothing was written", path.Join(dir, file)),
				Hint:    "name a directory without it",
			}
		}
	}
	for _, file := range files {
		if err := writeNew(root, file, contents[file]); err != nil {
			return nil, scaffoldError(err)
		}
	}
	return files, nil
}

// writeNew writes a file that must not be there; those people start get their
// exec bits.
func writeNew(root *os.Root, file string, text []byte) error {
	if err := root.MkdirAll(path.Dir(file), 0o755); err != nil {
		return err
	}
	mode := fs.FileMode(0o644)
	if bytes.HasPrefix(text, []byte("#!")) {
		mode = 0o755
	}
	f, err := root.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Chmod(mode), f.Close())
}

func scaffoldError(err error) error {
	return &daeploy.Error{Kind: daeploy.Failure, Code: "file_unwritable", Message: err.Error()}
}
