package container_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container"
	"github.com/daeploy/daeploy/container/network"
)

// TestJudgedVersions: the floors and holes of stack.md, sections 1 and 5.
func TestJudgedVersions(t *testing.T) {
	const ok, warn, fail = daeploy.FindingOK, daeploy.FindingWarn, daeploy.FindingFail
	for _, tt := range []struct {
		judge   func(string) daeploy.Finding
		version string
		want    daeploy.FindingState
	}{
		{container.JudgeContainerd, "1.6.19", fail},
		{container.JudgeContainerd, "1.6.20~ds1-1+b1", warn},
		{container.JudgeContainerd, "v1.7.27", warn},
		{container.JudgeContainerd, "2.1.0", fail},
		{container.JudgeContainerd, "2.2.4", warn},
		{container.JudgeContainerd, "2.2.5", ok},
		{container.JudgeContainerd, "v2.3.0", warn},
		{container.JudgeContainerd, "v2.3.2-rc.1", ok},
		{container.JudgeContainerd, "3.0.0", ok},
		{container.JudgeContainerd, "of-my-own", ok},
		{container.JudgeRunc, "1.1.4", fail},
		{container.JudgeRunc, "1.1.5+ds1", warn},
		{container.JudgeRunc, "1.2.9", warn},
		{container.JudgeRunc, "1.3.5", warn},
		{container.JudgeRunc, "1.3.6", ok},
		{container.JudgeRunc, "1.4.2", warn},
		{container.JudgeRunc, "1.4.3", ok},
		{container.JudgeRunc, "1.5.0", ok},
		{container.JudgeRunc, "1.10.0", ok},
	} {
		got := tt.judge(tt.version)
		if got.State != tt.want || (got.Hint == "") != (tt.want == ok) || got.Message == "" {
			t.Errorf("%s: %+v, want %s", tt.version, got, tt.want)
		}
	}
}

func TestCheckupRoot(t *testing.T) {
	root := filepath.Join(t.TempDir(), "containerd")
	snapshots := filepath.Join(root, "io.containerd.snapshotter.v1.overlayfs", "snapshots")
	if err := os.MkdirAll(snapshots, 0o700); err != nil {
		t.Fatal(err)
	}
	if got := container.CheckupRoot(snapshots); got.State != daeploy.FindingOK {
		t.Errorf("0700: %+v", got)
	}
	if err := os.Chmod(root, 0o711); err != nil {
		t.Fatal(err)
	}
	if got := container.CheckupRoot(snapshots); got.State != daeploy.FindingWarn || got.Hint != "chmod 0700 "+root {
		t.Errorf("0711: %+v", got)
	}
}

func TestCheckupNetwork(t *testing.T) {
	dir := t.TempDir()
	resolv := filepath.Join(dir, "resolv.conf")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c := network.Config{Bridge: "b", Subnet: "10.0.0.0/24", PluginDirs: []string{dir}}
	want := func(state daeploy.FindingState, words string) {
		t.Helper()
		if got := c.Checkup("network", resolv); got.State != state || !strings.Contains(got.Message, words) {
			t.Errorf("%+v; want %s with %q", got, state, words)
		}
	}
	want(daeploy.FindingFail, "plugin bridge")
	write("bridge", "#!")
	want(daeploy.FindingFail, "plugin host-local")
	write("host-local", "#!")
	want(daeploy.FindingFail, "no name server")
	write("resolv.conf", "nameserver 192.0.2.1\n")
	want(daeploy.FindingOK, "10.0.0.0/24")
	t.Setenv("PATH", dir)
	want(daeploy.FindingFail, "iptables is not installed")
}
