package main

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
)

// The log gets each failure once, as long as it lasts, and its end.
func TestFitness(t *testing.T) {
	var out strings.Builder
	plain := slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})
	f := fitness{log: slog.New(plain)}
	away := daeploy.Fault("containerd", &daeploy.Error{Kind: daeploy.Unavailable, Code: "containerd_unavailable", Message: "gone", Hint: "start it"})
	old := daeploy.Fault("containerd", &daeploy.Error{Kind: daeploy.Config, Code: "containerd_version", Message: "too old", Hint: "newer"})
	clock := daeploy.Fault("clock", &daeploy.Error{Kind: daeploy.Config, Code: "clock_off", Message: "it is 1970", Hint: "set it"})
	for _, round := range [][]daeploy.Finding{
		{daeploy.Fine("git", "2.39"), daeploy.Doubt("disk", "little", "more")},
		{away},
		{away, clock},
		{old, clock},
		{daeploy.Fine("containerd", "2.3.2"), clock},
		{daeploy.Fine("containerd", "2.3.2"), daeploy.Fine("clock", "right")},
	} {
		f.tell(round)
	}
	want := `level=ERROR msg="host is not fit" check=containerd err=gone hint="start it"
level=ERROR msg="host is not fit" check=clock err="it is 1970" hint="set it"
level=ERROR msg="host is not fit" check=containerd err="too old" hint=newer
level=INFO msg="host is fit again" check=containerd
level=INFO msg="host is fit again" check=clock
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("the log (-want +got):\n%s", diff)
	}
}
