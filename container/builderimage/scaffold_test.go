package builderimage_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/buildpipeline"
	"github.com/daeploy/daeploy/container/builderimage"
)

const perl = daeploy.ImageRef("daeploy.local/builders/perl:1")

// tree lists the files below dir with their modes.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, file)
		files[name] = info.Mode().String()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestScaffold: S56, C49.
func TestScaffold(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "perl")
	files, err := builderimage.Scaffold(dir, perl)
	if err != nil {
		t.Fatal(err)
	}
	const text, script = "-rw-r--r--", "-rwxr-xr-x"
	want := map[string]string{
		"Dockerfile": text, "Makefile": text, "README.md": text, "builder.toml": text,
		"s2i/bin/assemble": script, "s2i/bin/run": script, "s2i/bin/save-artifacts": script, "s2i/bin/usage": script,
		"test/run": script, "test/test-app/.daeploy": text, "test/test-app/public/index.html": text,
	}
	if diff := cmp.Diff(want, tree(t, dir)); diff != "" || len(files) != len(want) {
		t.Errorf("%d files are named; unlike what is wanted (-want +got):\n%s", len(files), diff)
	}

	// The recipe is one, and the app names its builder.
	recipe, err := os.ReadFile(filepath.Join(dir, "builder.toml"))
	if err != nil {
		t.Fatal(err)
	}
	var r builderimage.Recipe
	if err := buildpipeline.DecodeTOML("builder.toml", recipe, &r); err != nil {
		t.Fatal(err)
	}
	if err := r.Validate(); err != nil || r.Name != perl {
		t.Errorf("recipe of %s: %v", r.Name, err)
	}
	app, err := os.ReadFile(filepath.Join(dir, "test/test-app/.daeploy"))
	if err != nil {
		t.Fatal(err)
	}
	if file, err := buildpipeline.ParseAppFile(app); err != nil || file.Builder != perl {
		t.Errorf("the app names %q: %v", file.Builder, err)
	}
	if out, err := exec.Command(filepath.Join(dir, "test/run")).CombinedOutput(); err != nil || string(out) != "ok\n" {
		t.Errorf("test/run: %v\n%s", err, out)
	}
}

// TestScaffoldOverwritesNothing: in a used directory, whatever is in the way
// stays, and nothing else comes (S56).
func TestScaffoldOverwritesNothing(t *testing.T) {
	outside := t.TempDir()
	for name, occupy := range map[string]func(dir string) error{
		"a file":                 func(dir string) error { return os.WriteFile(filepath.Join(dir, "Makefile"), []byte("mine"), 0o600) },
		"a link to nowhere":      func(dir string) error { return os.Symlink("nowhere", filepath.Join(dir, "README.md")) },
		"a directory":            func(dir string) error { return os.Mkdir(filepath.Join(dir, "Dockerfile"), 0o700) },
		"a link out":             func(dir string) error { return os.Symlink(outside, filepath.Join(dir, "s2i")) },
		"a file for a directory": func(dir string) error { return os.WriteFile(filepath.Join(dir, "test"), nil, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := occupy(dir); err != nil {
				t.Fatal(err)
			}
			_, err := builderimage.Scaffold(dir, perl)
			var e *daeploy.Error
			if !errors.As(err, &e) || e.Kind != daeploy.Failure {
				t.Errorf("Scaffold: %v", err)
			}
			if got := tree(t, dir); len(got) > 1 {
				t.Errorf("written beside it: %v", got)
			}
			if got := tree(t, outside); len(got) > 0 {
				t.Errorf("written outside: %v", got)
			}
			if data, err := os.ReadFile(filepath.Join(dir, "Makefile")); err == nil && name == "a file" && string(data) != "mine" {
				t.Errorf("the file is now %q", data)
			}
		})
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "LICENSE"), []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := builderimage.Scaffold(dir, perl); err != nil {
		t.Errorf("beside another file: %v", err)
	}
}
