package gitreceive_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/gitreceive"
)

// F56: the host key is made once and never silently again.
func TestHostKey(t *testing.T) {
	for name, c := range map[string]struct {
		harm func(t *testing.T, file, marker string)
		ok   bool
		hint string
	}{
		"as it was":    {func(*testing.T, string, string) {}, true, ""},
		"missing":      {func(t *testing.T, file, _ string) { must(t, remove(file)) }, false, "restore"},
		"open":         {func(t *testing.T, file, _ string) { must(t, chmod(file, 0o644)) }, false, "chmod 0600"},
		"group":        {func(t *testing.T, file, _ string) { must(t, chmod(file, 0o640)) }, false, "chmod 0600"},
		"broken":       {func(t *testing.T, file, _ string) { must(t, write(file, "no key")) }, false, "restore"},
		"a directory":  {func(t *testing.T, file, _ string) { must(t, remove(file), mkdir(file)) }, false, "ls -l"},
		"begun afresh": {func(t *testing.T, file, marker string) { must(t, remove(file), remove(marker)) }, true, ""},
	} {
		t.Run("F56 "+name, func(t *testing.T) {
			dir := t.TempDir()
			first, err := gitreceive.OpenHostKey(dir)
			must(t, err)
			file := dir + "/ssh_host_ed25519_key"
			if mode := perm(t, file); mode != 0o600 {
				t.Errorf("the new key has the mode %o; want 600", mode)
			}
			c.harm(t, file, file+".made")
			again, err := gitreceive.OpenHostKey(dir)
			if c.ok {
				must(t, err)
				if same := again.Fingerprint() == first.Fingerprint(); same != (name == "as it was") {
					t.Errorf("the key is the same: %v", same)
				}
				return
			}
			e := new(daeploy.Error)
			if !errors.As(err, &e) || e.Kind != daeploy.Config || !strings.Contains(e.Hint, c.hint) {
				t.Errorf("got %+v; want an error of kind Config with a hint of %q", err, c.hint)
			}
		})
	}
	t.Attr("F56", "a host key missing, open, broken, a directory: no start, with a hint; made anew only where there never was one")
}
