package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/daeploy/daeploy"
)

// What a file, an archive or a registry says of itself cannot reach the terminal
// of whoever reads the error.
func TestFailIsClean(t *testing.T) {
	for name, tt := range map[string]struct {
		err  error
		want string
	}{
		"words for people": {
			&daeploy.Error{Kind: daeploy.Failure, Message: "daeploy \x1b]0;mine\a1 wrote it\n", Hint: "try\r\nagain \u202e", Err: errors.New("unsaid")},
			"error: daeploy ?]0;mine?1 wrote it\nhint: try  again ?\n",
		},
		"a fault of ours": {
			errors.Join(errors.New("open a\x1b[2J"), errors.New("open b")),
			"error: internal error in daeploy\nopen a?[2J\nopen b\nhint: push again; tell the operator of this host, whose log says more\n",
		},
	} {
		var out strings.Builder
		if code := fail(&out, tt.err); out.String() != tt.want || code != daeploy.ExitCode(tt.err) {
			t.Errorf("%s: exit %d\n%q, want\n%q", name, code, out.String(), tt.want)
		}
	}
}
