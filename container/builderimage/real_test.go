package builderimage_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/BurntSushi/toml"

	"github.com/daeploy/daeploy/container/builderimage"
)

const pythonDir = "../../builders/python"

func recipeOf(t *testing.T, dir string) builderimage.Recipe {
	t.Helper()
	var r builderimage.Recipe
	meta, err := toml.DecodeFile(filepath.Join(dir, "builder.toml"), &r)
	if err != nil {
		t.Fatal(err)
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		t.Fatalf("%s/builder.toml has unknown keys: %v", dir, unknown)
	}
	return r
}

func needMmdebstrap(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("mmdebstrap"); err != nil || os.Geteuid() != 0 {
		t.Fatal("this test needs root, mmdebstrap (apt-get install mmdebstrap) and Debian's archive")
	}
}

// hostLeft lists what Make leaves where it should leave nothing.
func hostLeft(t *testing.T, tmp string) {
	t.Helper()
	left, err := os.ReadDir(tmp)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) > 0 {
		t.Errorf("%d things were left in the temporary directory, the first is %s", len(left), left[0].Name())
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(mounts, []byte(tmp)) {
		t.Errorf("there are mounts below %s", tmp)
	}
}

// TestPython makes the real image twice. With DAEPLOY_TEST_CACHE, a directory
// that is kept between runs, the base system is bootstrapped at most once;
// without, twice: the proof that it is reproducible. The second time the umask
// is another, and so are the package sources, which must not be recorded.
func TestPython(t *testing.T) {
	needMmdebstrap(t)
	caches := []string{t.TempDir(), t.TempDir()}
	if dir := os.Getenv("DAEPLOY_TEST_CACHE"); dir != "" {
		caches = []string{dir, dir}
	}
	r := recipeOf(t, pythonDir)
	var ids []string
	var archive bytes.Buffer
	var img image
	for i, cache := range caches {
		umask := syscall.Umask([]int{0o022, 0o077}[i])
		t.Cleanup(func() { syscall.Umask(umask) })
		tmp := t.TempDir()
		t.Setenv("TMPDIR", tmp)
		archive.Reset()
		log, begin := new(bytes.Buffer), time.Now()
		o := builderimage.Options{CacheDir: cache, Log: log, Sources: reversed(img.content["etc/apt/sources.list"])}
		id, err := builderimage.Make(t.Context(), pythonDir, r, o, &archive)
		if err != nil {
			t.Fatalf("%v\n%s", err, log)
		}
		t.Logf("%s, archive of %d MiB, %s", id, archive.Len()>>20, time.Since(begin).Round(time.Millisecond))
		ids = append(ids, id)
		hostLeft(t, tmp)
		img = readImage(t, archive.Bytes())
	}
	if ids[0] != ids[1] {
		t.Errorf("same inputs, other digests: %s, %s", ids[0], ids[1])
	}
	checkPython(t, img)
}

// reversed are the lines of a sources.list: the same archives, told otherwise.
func reversed(list string) []string {
	lines := slices.Collect(strings.Lines(list))
	for i, l := range lines {
		lines[i] = strings.TrimSpace(l)
	}
	slices.Reverse(lines)
	return lines
}

func checkPython(t *testing.T, img image) {
	t.Helper()
	var size int64
	there := map[string]bool{}
	for _, h := range img.layer {
		there[strings.TrimSuffix(h.Name, "/")] = true
		size += h.Size
	}
	if size > 170<<20 {
		t.Errorf("the layer has %d MiB of files; 170 are enough", size>>20)
	}
	for _, name := range []string{
		"usr/bin/python3.11", "usr/bin/apt-get", "etc/ssl/certs/ca-certificates.crt", "tmp", "opt/app-root/src",
		"usr/libexec/s2i/usage", "usr/share/doc/python3.11/copyright", "etc/apt/sources.list",
		"usr/lib/python3.11/json/__pycache__/__init__.cpython-311.pyc", // uid 1001 could not write it
	} {
		if !there[name] {
			t.Errorf("/%s is missing", name)
		}
	}
	for _, name := range []string{"etc/hostname", "etc/resolv.conf", "etc/machine-id", "dev/null", "var/log/dpkg.log", "var/lib/dpkg/info/perl.list"} {
		if there[name] {
			t.Errorf("/%s is there", name)
		}
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	// Short names are part of many words.
	if name := "\n" + host + "\n"; len(host) > 5 {
		for file, text := range img.content {
			if strings.Contains(text, name) {
				t.Errorf("/%s tells the name of this host", file)
			}
		}
	}
}

// TestMmdebstrapFails reads what people get when a package is not to be had.
func TestMmdebstrapFails(t *testing.T) {
	needMmdebstrap(t)
	tmp, cache := t.TempDir(), t.TempDir()
	t.Setenv("TMPDIR", tmp)
	r := small()
	r.Packages = []string{"no-such-package-anywhere"}
	_, err := builderimage.Make(t.Context(), recipeDir(t, goodScripts), r, builderimage.Options{CacheDir: cache}, io.Discard)
	wantError(t, err, "bootstrap_failed", "mmdebstrap could not make the base system: ")
	hostLeft(t, tmp)
	if left := cached(t, cache); len(left) != 0 {
		t.Errorf("a failed base system is in the cache: %v", left)
	}
}

// TestMmdebstrapStops cancels it at work: nothing of it is left.
func TestMmdebstrapStops(t *testing.T) {
	needMmdebstrap(t)
	tmp, cache := t.TempDir(), t.TempDir()
	t.Setenv("TMPDIR", tmp)
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	log := &onWord{word: "extracting archives", then: func() { cancel(stop) }}
	r := small()
	r.Packages = nil
	_, err := builderimage.Make(ctx, recipeDir(t, goodScripts), r, builderimage.Options{CacheDir: cache, Log: log}, io.Discard)
	if !errors.Is(err, stop) {
		t.Errorf("error is %v, not the cause of the cancellation", err)
	}
	hostLeft(t, tmp)
	if left := cached(t, cache); len(left) != 0 {
		t.Errorf("an unfinished base system is in the cache: %v", left)
	}
	processes, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range processes {
		if env, _ := os.ReadFile(p); bytes.Contains(env, []byte("TMPDIR="+tmp+"/")) {
			t.Errorf("%s is still running", filepath.Dir(p))
		}
	}
}

// onWord calls then once, when word was written.
type onWord struct {
	word string
	then func()
	b    bytes.Buffer
	done bool
}

func (o *onWord) Write(p []byte) (int, error) {
	o.b.Write(p)
	if !o.done && strings.Contains(o.b.String(), o.word) {
		o.done = true
		o.then()
	}
	return len(p), nil
}

func TestMmdebstrapMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := builderimage.Make(t.Context(), recipeDir(t, goodScripts), small(), builderimage.Options{}, io.Discard)
	wantError(t, err, "mmdebstrap_missing", "not installed")
}

// TestBuilderScripts runs the scripts' own tests, by the interpreters of this
// machine.
func TestBuilderScripts(t *testing.T) {
	tests, err := filepath.Glob("../../builders/*/test/run")
	if err != nil || len(tests) < 4 {
		t.Fatalf("%d tests, error %v", len(tests), err)
	}
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Fatal(err)
	}
	path := "PATH=/usr/sbin:/usr/bin:/sbin:/bin:" + filepath.Dir(goTool)
	for _, name := range tests {
		t.Run(strings.Split(name, "/")[3], func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), name)
			// Debian's own python3, as in the image. The script removes its directory
			// itself; t.TempDir lies where uid 1001 cannot go.
			cmd.Env = []string{path, "LANG=C.UTF-8"}
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// TestRecipes reads every recipe of ours.
func TestRecipes(t *testing.T) {
	recipes, err := filepath.Glob("../../builders/*/builder.toml")
	if err != nil || len(recipes) < 5 {
		t.Fatalf("%d recipes, error %v", len(recipes), err)
	}
	for _, name := range recipes {
		if err := recipeOf(t, filepath.Dir(name)).Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRuntime makes the real runtime image twice, under two umasks: a few files
// of unpacked packages.
func TestRuntime(t *testing.T) {
	needMmdebstrap(t)
	const dir = "../../builders/go-runtime"
	r := recipeOf(t, dir)
	var ids []string
	var archive bytes.Buffer
	for _, mask := range []int{0o022, 0o077} {
		umask := syscall.Umask(mask)
		t.Cleanup(func() { syscall.Umask(umask) })
		tmp := t.TempDir()
		t.Setenv("TMPDIR", tmp)
		archive.Reset()
		log := new(bytes.Buffer)
		id, err := builderimage.Make(t.Context(), dir, r, builderimage.Options{Log: log}, &archive)
		if err != nil {
			t.Fatalf("%v\n%s", err, log)
		}
		ids = append(ids, id)
		hostLeft(t, tmp)
	}
	if ids[0] != ids[1] {
		t.Errorf("same inputs, other digests: %s, %s", ids[0], ids[1])
	}
	if archive.Len() > 5<<20 {
		t.Errorf("the archive has %d MiB; 5 are enough", archive.Len()>>20)
	}
	img := readImage(t, archive.Bytes())
	modes := map[string]int64{}
	for _, h := range img.layer {
		modes[h.Name] = h.Mode
	}
	for name, mode := range map[string]int64{
		"bin/busybox": 0o755, "bin/sh": 0o777, "etc/passwd": 0o644, "etc/ssl/certs/ca-certificates.crt": 0o644, "tmp/": 0o1777,
		"usr/libexec/s2i/run": 0o755, "usr/share/doc/busybox-static/copyright": 0o644, "usr/share/zoneinfo/Europe/Stockholm": 0o644,
	} {
		if modes[name] != mode {
			t.Errorf("/%s has mode %#o, not %#o; 0 is a file that is not there", name, modes[name], mode)
		}
	}
	if n := strings.Count(img.content["etc/ssl/certs/ca-certificates.crt"], "BEGIN CERTIFICATE"); n < 100 {
		t.Errorf("the bundle has %d certificates", n)
	}
}

func TestShellcheck(t *testing.T) {
	var files []string
	for _, pattern := range []string{
		"../../builders/*/s2i/bin/*", "../../builders/*/test/run", "../../examples/*/.s2i/bin/*",
	} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %d files, error %v", pattern, len(found), err)
		}
		files = append(files, found...)
	}
	for _, f := range files {
		if info, err := os.Stat(f); err != nil || info.Mode().Perm()&0o111 == 0 {
			t.Errorf("%s is not executable: %v", f, err)
		}
	}
	out, err := exec.CommandContext(t.Context(), "shellcheck", files...).CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		t.Fatal("this test needs shellcheck (apt-get install shellcheck)")
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
