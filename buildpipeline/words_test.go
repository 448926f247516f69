package buildpipeline_test

import (
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/buildpipeline"
)

// TestWrap: F94, F95. What we say is ASCII of at most 72 columns, whatever
// somebody else's words hold.
func TestWrap(t *testing.T) {
	lines := buildpipeline.Wrap("error:", "the \x1b[31mimage\r\nof J\u00fcrgen "+strings.Repeat("is not there ", 12))
	if len(lines) < 2 {
		t.Fatalf("not wrapped: %q", lines)
	}
	for _, line := range lines {
		if len(line) > 72 || buildpipeline.Plain(line) != line {
			t.Errorf("line of %d bytes: %q", len(line), line)
		}
	}
	if !strings.HasPrefix(lines[0], "error: the ?[31mimage??of J?rgen") {
		t.Errorf("first line %q", lines[0])
	}
	long := "https://example.org/" + strings.Repeat("x", 100)
	if got := buildpipeline.Wrap("hint:", long); len(got) != 1 || got[0] != "hint: "+long {
		t.Errorf("a word that can be copied was broken: %q", got)
	}
	t.Attr("F94", "names with escapes and other scripts in our own lines: ASCII of at most 72 columns")
}

func TestShorten(t *testing.T) {
	if got := buildpipeline.Shorten("registry.example.org/a/very/long/path/builder:3.11", 30); len(got) != 30 || !strings.HasSuffix(got, "builder:3.11") {
		t.Errorf("shortened to %q (%d)", got, len(got))
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1258291: "1.2 MiB", 38 << 20: "38 MiB", 5 << 30: "5.0 GiB"} {
		if got := buildpipeline.Size(n); got != want {
			t.Errorf("%d bytes are %q, want %q", n, got, want)
		}
	}
}

// S4: a tree can have any number of submodules and LFS pointers; the log has
// ten of them and how many more there are.
func TestBounded(t *testing.T) {
	for n, want := range map[int]int{0: 0, 1: 1, 10: 10, 11: 11, 5000: 11} {
		lines := buildpipeline.Bounded(n, "submodule")
		if len(lines) != want {
			t.Errorf("%d give %d lines, want %d", n, len(lines), want)
		}
		if last := "warning: and " + strconv.Itoa(n-10) + " more submodule"; n > 10 && !strings.HasPrefix(lines[10], last) {
			t.Errorf("%d end with %q, want %q", n, lines[10], last)
		}
	}
}

// S4: a pointer is one however its bytes come, and what only begins like one is none.
func TestPointers(t *testing.T) {
	const head = "version https://git-lfs.github.com/spec/v1\n"
	for text, want := range map[string][]string{
		head + "oid sha256:0\nsize 9\n":     {"name"},
		head:                                {"name"},
		head[:len(head)-1] + " ":            nil,
		"x" + head:                          nil,
		head[:len(head)-1]:                  nil,
		"":                                  nil,
		head + strings.Repeat("x", 1024-43): {"name"},
		head + strings.Repeat("x", 1025-43): nil,
	} {
		for how, reader := range map[string]func(io.Reader) io.Reader{
			"at once": func(r io.Reader) io.Reader { return r }, "byte by byte": iotest.OneByteReader, "by halves": iotest.HalfReader,
			"with the end": iotest.DataErrReader,
		} {
			read, got, err := buildpipeline.Pointers("name", int64(len(text)), reader(strings.NewReader(text)))
			if read != text || err != nil || !slices.Equal(got, want) {
				t.Errorf("%.60q %s: %v, %v; want %v", text, how, got, err, want)
			}
		}
	}
}

// F94: what strangers wrote is repeated in part only: one value never takes the words
// around it away, and no file makes many lines.
func TestForeignValuesAreShort(t *testing.T) {
	long := strings.Repeat("x", 60<<10)
	place := strings.Repeat("/"+strings.Repeat("x", 200), 20) // a path that there may be
	builder := func(config string) error {
		_, _, _, _, _, err := buildpipeline.Layout([]byte(`{"config":` + config + `}`))
		return err
	}
	for name, test := range map[string]struct {
		err  error
		want string // the end of the error's line
	}{
		"scripts on the web":    {builder(`{"Labels":{"io.openshift.s2i.scripts-url":"https://` + long + `"}}`), "which this server does not fetch"},
		"scripts nowhere":       {builder(`{"Labels":{"io.openshift.s2i.scripts-url":"` + long + `"}}`), `x"`},
		"working directory":     {builder(`{"WorkingDir":"/proc` + place + `"}`), `x"`},
		"no working directory":  {builder(`{"WorkingDir":"/` + long + `"}`), "at most 4095 are allowed"},
		"destination":           {builder(`{"Labels":{"io.openshift.s2i.destination":"/proc` + place + `"}}`), `x"`},
		"no destination":        {builder(`{"Labels":{"io.openshift.s2i.destination":"/` + long + `"}}`), "at most 4095 are allowed"},
		"scripts of no host":    {second(buildpipeline.Web([]string{"https://a.example"}, "https://u@"+long)), "it has a user in it"},
		"user":                  {buildpipeline.CheckUser("1000-", long, ""), "this server allows numeric users in 1000-"},
		"artifact":              {second(buildpipeline.ParseArtifacts([]string{long}, "/")), "the source is not an absolute path"},
		"two artifacts":         {second(buildpipeline.ParseArtifacts([]string{place, place}, "/")), "x"},
		"no artifact":           {second(buildpipeline.ParseArtifacts([]string{"/" + long}, "/")), "at most 4095 are allowed"},
		"context_dir":           {second(buildpipeline.ParseAppFile([]byte(`context_dir = "/` + long + `"`))), "is not inside the repository"},
		"timeout":               {second(buildpipeline.ParseAppFile([]byte("[build]\ntimeout = \"" + long + `"`))), "is not a duration above zero"},
		"memory":                {second(buildpipeline.ParseAppFile([]byte("[build]\nmemory = \"" + long + `"`))), "is not a whole number of MiB or GiB"},
		"name of a variable":    {second(buildpipeline.ParseAppFile([]byte("[env]\n\"a " + long + `" = "b"`))), "is not a variable name"},
		"value of a variable":   {second(buildpipeline.ParseAppFile([]byte("[env]\n" + long + ` = "\u0000"`))), "has a NUL character in its value"},
		"names of labels":       {buildpipeline.CheckLabels(map[string]string{long: "", long + "y": "", long + "z": ""}), "10240 are allowed"},
		"words of somebody":     {daeploy.Errorf(daeploy.BuildFailed, "builder_unreachable", "it answers %s", long), "x"},
		"what nobody has words": {errors.New(long), "internal error in this push"},
	} {
		lines := buildpipeline.Said(test.err)
		problem, all := "", strings.Join(lines, "\n")
		for _, line := range lines {
			if strings.HasPrefix(line, "hint:") {
				break
			}
			problem += " " + strings.TrimSpace(line)
		}
		if len(all) > 1500 || !strings.HasSuffix(problem, test.want) {
			t.Errorf("%s: %d bytes, %.2000q; want the end %q", name, len(all), all, test.want)
		}
	}
	for name, text := range map[string]string{
		"lines without =": strings.Repeat("x\n", 128<<10), "an odd name": long + " y=1", "odd names": strings.Repeat("-=\n", 80<<10),
	} {
		_, notices, err := buildpipeline.ParseEnvironment([]byte(text))
		if said := strings.Join(notices, "\n"); err != nil || len(notices) > 11 || len(said) > 1500 {
			t.Errorf("%s: %d lines, %d bytes; %v", name, len(notices), len(said), err)
		}
	}
	t.Attr("F94", "lines, labels, paths and users of 60 KiB, 131,072 odd lines in one file: a sentence of 1,000 bytes with its last words, ten lines and how many more")
}

func second[T any](_ T, err error) error { return err }
