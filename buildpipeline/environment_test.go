package buildpipeline_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/buildpipeline"
)

// TestParseEnvironment is the table of S69.
func TestParseEnvironment(t *testing.T) {
	for _, test := range []struct {
		line    string
		want    map[string]string
		notices int
	}{
		{"APP_FILE = service.py", map[string]string{"APP_FILE": "service.py"}, 0},
		{"A=b", map[string]string{"A": "b"}, 0},
		{"A = b", map[string]string{"A": "b"}, 0},
		{" A=b ", map[string]string{"A": "b"}, 0},
		{"A=b\r\n", map[string]string{"A": "b"}, 0},
		{"A=b=c", map[string]string{"A": "b=c"}, 0},
		{"A=", map[string]string{"A": ""}, 0},
		{"A=$B", map[string]string{"A": "$B"}, 0},
		{"A=b # c", map[string]string{"A": "b # c"}, 0},
		{`A="b c"`, map[string]string{"A": "b c"}, 0},
		{`A='b c'`, map[string]string{"A": "b c"}, 0},
		{`A = " b "`, map[string]string{"A": " b "}, 0},
		{`A=""`, map[string]string{"A": ""}, 0},
		{`APP_MODULE="pkg:app"`, map[string]string{"APP_MODULE": "pkg:app"}, 0},
		{`A="b`, map[string]string{"A": `"b`}, 0},
		{`A="b" x`, map[string]string{"A": `"b" x`}, 0},
		{`A='"b"'`, map[string]string{"A": `"b"`}, 0},
		{`A="`, map[string]string{"A": `"`}, 0},
		{"# x", map[string]string{}, 0},
		{"", map[string]string{}, 0},
		{"A", map[string]string{}, 1},
		{" # A=b", map[string]string{"# A": "b"}, 1},
		{"export A=b", map[string]string{"export A": "b"}, 1},
		{"A=1\nA=2", map[string]string{"A": "2"}, 0},
		{"DAEPLOY_SERVICE_DB_TABLE_LIMIT=3", map[string]string{"DAEPLOY_SERVICE_DB_TABLE_LIMIT": "3"}, 0},
	} {
		got, notices, err := buildpipeline.ParseEnvironment([]byte(test.line))
		if err != nil {
			t.Errorf("%q: %v", test.line, err)
			continue
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", test.line, diff)
		}
		if len(notices) != test.notices {
			t.Errorf("%q gave the notices %q, want %d", test.line, notices, test.notices)
		}
	}
}

// TestParseEnvironmentFaults: S62, S65, S66.
func TestParseEnvironmentFaults(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"no name", "A=1\n=b\n", ".s2i/environment:2: no name"},
		{"blank name", " =b", ".s2i/environment:1: no name"},
		{"reserved", "DAEPLOY_COMMIT=x", ".s2i/environment:1: DAEPLOY_COMMIT is reserved"},
		{"NUL", "A=\x00", ".s2i/environment:1: the line has a NUL"},
		{"not UTF-8", "A=1\nB=\xff\n", ".s2i/environment:2: the line is not UTF-8"},
		{"long line", "A=" + strings.Repeat("x", 64<<10), ".s2i/environment:1: the line has"},
		{"long file", strings.Repeat("#\n", 129<<10), ".s2i/environment:1: the file has"},
	} {
		_, _, err := buildpipeline.ParseEnvironment([]byte(test.text))
		var e *daeploy.Error
		if !errors.As(err, &e) || e.Code != "env_invalid" || !strings.HasPrefix(e.Message, test.want) {
			t.Errorf("%s: error %v, want env_invalid %q", test.name, err, test.want)
		}
	}
}

// FuzzParseEnvironment holds the parser against a slow reading of S63 to S65.
func FuzzParseEnvironment(f *testing.F) {
	f.Add("APP_FILE = service.py")
	f.Add("A=\"b c\"\r\n# x\nB")
	f.Add(" =b")
	f.Fuzz(func(t *testing.T, text string) {
		got, _, err := buildpipeline.ParseEnvironment([]byte(text))
		if err != nil {
			return
		}
		want := map[string]string{}
		for line := range strings.SplitSeq(text, "\n") {
			line = strings.TrimSuffix(line, "\r")
			at := strings.IndexByte(line, '=')
			if at < 0 || line[0] == '#' {
				continue
			}
			name, value := strings.TrimSpace(line[:at]), strings.TrimSpace(line[at+1:])
			if len(value) > 1 && (value[0] == '"' || value[0] == '\'') && value[0] == value[len(value)-1] {
				value = value[1 : len(value)-1]
			}
			want[name] = value
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-slow +got):\n%s", text, diff)
		}
	})
}
