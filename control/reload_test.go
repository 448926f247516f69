package control_test

import (
	"strings"
	"testing"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/control"
)

// A reload that takes something is in the audit trail, one that is refused is not,
// and no second line of the log tells of it.
func TestReload(t *testing.T) {
	h := newHost()
	if got := run(t, h, control.Call{Actor: admin}, "reload"); !strings.Contains(got.log, "config reloaded") || !strings.Contains(got.log, "needs a restart: ssh_addr") {
		t.Errorf("the log has %q", got.log)
	}
	h.reload = control.Reload{}
	if got := run(t, h, control.Call{Actor: admin}, "reload"); got.code != 0 || got.out != "nothing has changed\n" {
		t.Errorf("without a change: exit %d, %q", got.code, got.out)
	}
	h.broken = &daeploy.Error{
		Kind: daeploy.Config, Code: "config_invalid", Message: `/etc/daeploy/daeploy.toml:3:1: unknown key "max_bilds"`, Hint: "known here: max_builds", Logged: true,
	}
	got := run(t, h, control.Call{Actor: admin}, "reload")
	if want := "error: /etc/daeploy/daeploy.toml:3:1: unknown key \"max_bilds\"\nhint: known here: max_builds\n"; got.code != 78 || got.err != want || got.out != "" {
		t.Errorf("a fault in the file: exit %d\n%s%s", got.code, got.out, got.err)
	}
	if got.log != "" {
		t.Errorf("the log has a second line: %q", got.log)
	}
}
