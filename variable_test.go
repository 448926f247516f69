package daeploy_test

import (
	"strings"
	"testing"

	"github.com/daeploy/daeploy"
)

// S66, and what neither an environment nor a file name can hold.
func TestVariableCheck(t *testing.T) {
	for _, tt := range []struct{ name, value, want string }{
		{"A", "", ""},
		{"_x.y-Z9", "two\nlines, \u00fc", ""},
		{strings.Repeat("a", 128), strings.Repeat("v", 64<<10), ""},
		{"DAEPLOY_SERVICE_DB_TABLE_LIMIT", "9", ""},
		{"DAEPLOY_COMMIT", "x", "is reserved"},
		{"DAEPLOY_APP", "", "is reserved"},
		{"", "x", "is not a name"},
		{"9A", "x", "is not a name"},
		{"A B", "x", "is not a name"},
		{"A\n", "x", "is not a name"},
		{strings.Repeat("a", 129), "x", "is not a name"},
		{"A", strings.Repeat("v", 64<<10+1), "65537 bytes"},
		{"A", "secret\x00word", "NUL"},
		{"A", "secret\xff", "UTF-8"},
	} {
		err := daeploy.Variable{Name: tt.name, Value: tt.value}.Check()
		wantInvalid(t, tt.name, err, "variable_invalid", tt.want)
		if err != nil && strings.Contains(err.Error(), "secret\x00") {
			t.Errorf("the error shows the value: %v", err)
		}
	}
}

// S74: a name is a file's, below one directory.
func TestCheckSecret(t *testing.T) {
	for _, tt := range []struct{ name, value, want string }{
		{"npmrc", "x", ""},
		{"tls.key", "\x00\xff", ""},
		{"a", strings.Repeat("v", 64<<10), ""},
		{".", "x", "is not a name"},
		{"..", "x", "is not a name"},
		{"a/b", "x", "is not a name"},
		{"a\x00", "x", "is not a name"},
		{"a", "", "would be empty"},
		{"a", strings.Repeat("v", 64<<10+1), "more than 65536 bytes"},
	} {
		wantInvalid(t, tt.name, daeploy.CheckSecret(tt.name, []byte(tt.value)), "secret_invalid", tt.want)
	}
}

func wantInvalid(t *testing.T, name string, err error, code, words string) {
	t.Helper()
	if words == "" {
		if err != nil {
			t.Errorf("%.20q: %v", name, err)
		}
		return
	}
	e := daeploy.Public(err, "")
	if err == nil || e.Kind != daeploy.Invalid || e.Code != code || !strings.Contains(e.Message, words) || e.Hint == "" {
		t.Errorf("%.20q: %+v, want %s with %q", name, e, code, words)
	}
}

func FuzzCheckSecret(f *testing.F) {
	for _, seed := range []string{"token", "..", "a/b", "", "A.b-c", "\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if daeploy.CheckSecret(name, []byte("x")) == nil && (name == "" || name[0] == '.' || strings.ContainsAny(name, "/\x00\n") || len(name) > 128) {
			t.Errorf("%q passes for a file name", name)
		}
	})
}
