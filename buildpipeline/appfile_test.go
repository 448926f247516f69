package buildpipeline_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/buildpipeline"
)

func TestParseAppFile(t *testing.T) {
	for _, test := range []struct {
		name, text string
		want       buildpipeline.AppFile
	}{
		{"S164 empty", "", buildpipeline.AppFile{}},
		{"S161 BOM and CR LF", "\xef\xbb\xbfbranch = \"live\"\r\n", buildpipeline.AppFile{Branch: "live"}},
		{
			"S163 all keys", `
builder = "quay.io/sclorg/python-312-c9s"
context_dir = "./services/api/"
incremental = false
branch = "production"
[env]
APP_FILE = "service.py"
WORKERS = 4
DEBUG = false
QUOTED = '"x"'
[build]
timeout = "1h20m"
memory = "2GiB"
cpus = 1.5
`, buildpipeline.AppFile{
				Builder: "quay.io/sclorg/python-312-c9s:latest", Written: "quay.io/sclorg/python-312-c9s", ContextDir: "services/api", Branch: "production",
				Incremental: new(bool),
				Env:         map[string]string{"APP_FILE": "service.py", "WORKERS": "4", "DEBUG": "false", "QUOTED": `"x"`},
				Timeout:     80 * time.Minute, Memory: 2 << 30, CPUs: 1.5,
			},
		},
		{"S165 the root", `context_dir = "."`, buildpipeline.AppFile{}},
		{
			"S163 runtime", "[runtime]\nimage = \"run:1\"\nartifacts = [\"/a\", \"/b:c\"]\n",
			buildpipeline.AppFile{Runtime: buildpipeline.RuntimeFile{Image: "docker.io/library/run:1", Artifacts: []string{"/a", "/b:c"}}},
		},
		{
			"S111 a clean build", "incremental = false\n[runtime]\nimage = \"run:1\"\n",
			buildpipeline.AppFile{Incremental: new(bool), Runtime: buildpipeline.RuntimeFile{Image: "docker.io/library/run:1"}},
		},
		{"S26 short name", `builder = "daeploy/s2i-python"`, buildpipeline.AppFile{Builder: "docker.io/daeploy/s2i-python:latest", Written: "daeploy/s2i-python"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := buildpipeline.ParseAppFile([]byte(test.text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("unlike what the file says (-want +got):\n%s", diff)
			}
		})
	}
}

// TestParseAppFileFaults: S161, S162, C51, F73, F75.
func TestParseAppFileFaults(t *testing.T) {
	var longest time.Duration
	for _, test := range []struct{ name, text, want string }{
		{"unknown key", "# a comment\n\nbulder = \"x\"\n", `.daeploy:3:1: unknown key "bulder"; did you mean "builder"?`},
		{"unknown table", "[biuld]\ntimeout = \"1m\"\n", `.daeploy:1:2: unknown table "biuld"; did you mean "build"?`},
		{"unknown key in a table", "builder = \"x\"\n[build]\n  timout = \"1m\"\n", `.daeploy:3:3: unknown key "timout"; did you mean "timeout"?`},
		{"wrong type", "# x\n  builder = 3\n", ".daeploy:2:3: builder is not a string but an integer"},
		{"incremental as a string, S163", "incremental = \"no\"\n", ".daeploy:1:1: incremental is not a boolean but a string"},
		{"wrong type in a table", "branch = \"a\"\n[build]\nmemory = 2\n", ".daeploy:3:1: memory is not a string but an integer"},
		{"a date", "branch = 2026-01-01\n", ".daeploy:1:1: branch is not a string but a date"},
		{"a table for a key", "\n[builder]\n", ".daeploy:2:2: builder is not a string but a table"},
		{"a key for a table", "\nenv = true\n", ".daeploy:2:1: env is not a table but a boolean"},
		{"tables for a table", "[[env]]\nA = 1\n", ".daeploy:1:3: env is not a table but an array of tables"},
		{"wrong type in an inline table", "env = { A = 1, B = [2] }\n", ".daeploy:1:16: B is not a string, an integer or a boolean but an array"},
		{"wrong type by a dotted key", "build.cpus = true\n", ".daeploy:1:7: cpus is not an integer or a float but a boolean"},
		{"capitals count", "Builder = \"x\"\n", `.daeploy:1:1: unknown key "Builder"; did you mean "builder"?`},
		{"unknown table, quoted", "[ \"biuld\" ]\n", `.daeploy:1:3: unknown table "biuld"; did you mean "build"?`},
		{"known only elsewhere", "timeout = \"1m\"\n", `.daeploy:1:1: unknown key "timeout"`},
		{"the first fault counts", "bulder = 1\n[build]\ncpus = 0\nbranch = 1\n", `.daeploy:1:1: unknown key "bulder"`},
		{"a key's name in a text", "branch = '''\ncpus = 1\n'''\n[build]\ncpus = 0\n", ".daeploy:5:1: cpus is not a number"},
		{"after a BOM", "\xef\xbb\xbfbulder = 1\n", `.daeploy:1:1: unknown key`},
		{"a known name as a table elsewhere", "[env]\nA = \"b\"\n[build.builder]\n", `.daeploy:3:8: unknown table "builder"`},
		{"empty timeout", "[build]\ntimeout = \"\"\n", `.daeploy:2:1: timeout ""`},
		{"twice", "branch = \"a\"\nbranch = \"b\"\n", ".daeploy:2:"},
		{"syntax", "builder = \n", ".daeploy:1:"},
		{"65 KiB", strings.Repeat("#", 65<<10), ".daeploy:1:1: the file has 66560 bytes"},
		{"a pointer of Git LFS, F72", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", ".daeploy:1:1: this is a Git LFS pointer"},
		{"not UTF-8", "builder = \"\xff\"\n", ".daeploy:1:1: the file is not UTF-8"},
		{"image name", "builder = \"Not An Image\"\n", `.daeploy:1:1: image name`},
		{"absolute context_dir", "context_dir = \"/etc\"\n", `.daeploy:1:1: context_dir "/etc" is not inside`},
		{"context_dir that leaves", "context_dir = \"a/../../b\"\n", ".daeploy:1:1: context_dir"},
		{"reserved name, S66", "[env]\nDAEPLOY_COMMIT = \"x\"\n", ".daeploy:2:1: DAEPLOY_COMMIT is reserved"},
		{"NUL in a value", "[env]\nA = \"a\\u0000b\"\n", ".daeploy:2:1: A has a NUL"},
		{"name with a blank", "[env]\n\"A B\" = \"x\"\n", `"A B" is not a variable name`},
		{"list in env", "[env]\nA = [1]\n", ".daeploy:2:1: A is not a string"},
		{"timeout zero", "[build]\ntimeout = \"0s\"\n", `.daeploy:2:1: timeout "0s"`},
		{"timeout without unit", "[build]\ntimeout = \"20\"\n", ".daeploy:2:1: timeout"},
		{"timeout in ms", "[build]\ntimeout = \"20ms\"\n", ".daeploy:2:1: timeout"},
		{"memory in MB", "[build]\nmemory = \"2GB\"\n", ".daeploy:2:1: memory"},
		{"cpus below zero", "[build]\ncpus = -1\n", ".daeploy:2:1: cpus"},
		{"cpus as text", "[build]\ncpus = \"2\"\n", ".daeploy:2:1: cpus"},
		{"host paths, F75", "[mounts]\n\"/\" = \"/host\"\n", `.daeploy:1:2: unknown table "mounts"`},
		{"runtime without an image, C51", "\n[runtime]\nartifacts = [\"/a\"]\n", ".daeploy:2:2: [runtime] has no image"},
		{"runtime image that is no name", "[runtime]\nimage = \"A B\"\n", ".daeploy:2:1: image name"},
		{"unknown key of runtime", "[runtime]\nimages = \"x\"\n", `.daeploy:2:1: unknown key "images"; did you mean "image"?`},
		{"artifacts that are no list", "[runtime]\nimage = \"x\"\nartifacts = \"/a\"\n", ".daeploy:3:1: artifacts is not an array of strings but a string"},
		{"S111", "branch = \"main\"\nincremental = true\n[runtime]\nimage = \"x\"\n", ".daeploy:2:1: incremental = true and [runtime]"},
		{"nested brackets, F73", strings.Repeat("[", 60_000), ".daeploy:1:1: tables are nested"},
		{"nested tables, F73", "x = " + strings.Repeat("{a=", 20_000), ".daeploy:1:1: tables are nested"},
		{"deep dotted key, F73", "\n" + strings.Repeat("a.", 32_000) + "a = 1\n", ".daeploy:2:1: tables are nested"},
		{"deep dotted table, F73", "[" + strings.Repeat("a.", 32_000) + "a]\n", ".daeploy:1:1: tables are nested"},
		{"a million digits, F73", "builder = " + strings.Repeat("9", 65_000), ".daeploy:1:"},
		{"30,000 keys, F73", strings.Repeat("a=1\nb=1\n", 8_000), ".daeploy:"},
		{"tables without end, F73", strings.Repeat("[[a]]\n", 10_000), ".daeploy:"},
		{"dots in a string are none", "bulder = '" + strings.Repeat(".", 100) + "' # " + strings.Repeat("[", 100) + "\n", `unknown key "bulder"`},
		{"too little memory", "[build]\nmemory = \"1MiB\"\n", ".daeploy:2:1: memory"},
		{"too few cpus", "[build]\ncpus = 0.000001\n", ".daeploy:2:1: cpus"},
	} {
		t.Run(test.name, func(t *testing.T) {
			begin := time.Now()
			_, err := buildpipeline.ParseAppFile([]byte(test.text))
			took := time.Since(begin)
			if took > time.Second {
				t.Errorf("reading took %s", took)
			}
			longest = max(longest, took)
			var e *daeploy.Error
			if !errors.As(err, &e) {
				t.Fatalf("error %v, want a daeploy.Error", err)
			}
			if len(e.Message) > 400 {
				t.Errorf("the message has %d bytes", len(e.Message))
			}
			if e.Code != "daeploy_file_invalid" || !strings.Contains(e.Message, test.want) {
				t.Errorf("%s: %q, want daeploy_file_invalid: %q", e.Code, e.Message, test.want)
			}
		})
	}
	t.Attr("F73", fmt.Sprintf("unknown and double keys, wrong types, 65 KiB, no UTF-8, 60,000 brackets, 16,000 keys, deep tables: line, column, nearest name, within %d ms", longest.Milliseconds()))
	t.Attr("F75", "host paths, a NUL, reserved and odd names in .daeploy: refused with line and column")
	t.Attr("F79", "context_dir that is absolute or leaves: refused with line and column")
}

func FuzzParseAppFile(f *testing.F) {
	f.Add("builder = \"x\"\n[env]\nA = 1\n[build]\ncpus = 0.5\n")
	f.Add("bulder = \"x\"")
	f.Add("[runtime]\nimage = \"x\"\nartifacts = [\"/a:b\", 3]\n")
	f.Add("a.b.c.d = 1")
	f.Add("[[env]]\n")
	f.Fuzz(func(t *testing.T, text string) {
		file, err := buildpipeline.ParseAppFile([]byte(text))
		if err != nil {
			var e *daeploy.Error
			if !errors.As(err, &e) || !strings.HasPrefix(e.Message, ".daeploy:") {
				t.Fatalf("error without a place: %v", err)
			}
			return
		}
		if strings.HasPrefix(file.ContextDir, "..") || strings.HasPrefix(file.ContextDir, "/") {
			t.Errorf("context_dir %q leads out", file.ContextDir)
		}
		for name, value := range file.Env {
			if name == "" || strings.ContainsAny(name, "= \t\n\x00") || strings.ContainsRune(value, 0) {
				t.Errorf("accepted %q = %q", name, value)
			}
		}
		if file.Timeout < 0 || file.Memory < 0 || file.CPUs < 0 {
			t.Errorf("accepted limits below zero: %+v", file)
		}
	})
}

// F73: a file that is all faults costs its length, not the square of it.
func TestParseAppFileAllFaults(t *testing.T) {
	for name, line := range map[string]string{"keys": "a%d = 1\n", "tables": "[a%d.a]\n", "arrays": "[[a%d]]\n", "variables": "[env.a%d]\n"} {
		t.Run(name, func(t *testing.T) {
			var text strings.Builder
			for i := 0; text.Len() < 64<<10-30; i++ {
				fmt.Fprintf(&text, line, i)
			}
			began := time.Now()
			_, err := buildpipeline.ParseAppFile([]byte(text.String()))
			if took := time.Since(began); err == nil || took > 5*time.Second {
				t.Errorf("after %s: %v", took, err)
			}
			t.Log(time.Since(began), err)
		})
	}
}
