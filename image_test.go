package daeploy_test

import (
	"strings"
	"testing"

	"github.com/daeploy/daeploy"
)

// F84: what the kernel refuses in any call, and what costs the square of its length.
func TestCheckImagePath(t *testing.T) {
	for name, tt := range map[string]struct{ path, want string }{
		"root":               {"/", ""},
		"usual":              {"/opt/app-root/src", ""},
		"deepest":            {strings.Repeat("/a", daeploy.MaxImageDepth), ""},
		"too deep":           {strings.Repeat("/a", daeploy.MaxImageDepth+1), "is 129 directories deep; at most 128 are allowed"},
		"20,000 directories": {strings.Repeat("/a", 20_000), "is 20000 directories deep; at most 128 are allowed"},
		"longest name":       {"/" + strings.Repeat("a", 255), ""},
		"too long a name":    {"/a/" + strings.Repeat("b", 256) + "/c", "has a name of 256 bytes; at most 255 are allowed"},
		"longest":            {strings.Repeat("/"+strings.Repeat("a", 62), 65), ""},
		"too long":           {strings.Repeat("/"+strings.Repeat("a", 63), 64), "has 4096 bytes; at most 4095 are allowed"},
		"NUL":                {"/a\x00b", "has a NUL character"},
	} {
		if got := errorText(daeploy.CheckImagePath(tt.path)); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}
