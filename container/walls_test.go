package container_test

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container"
	"github.com/daeploy/daeploy/container/containertest"
)

// S40, S134, F114: a program in a container tries a list of what a build must not be able
// to do (containertest/probe); as root it may do two things on it, else nothing. That
// the list would get through without walls is seen outside of a container.
func TestProbe(t *testing.T) {
	probe := buildProbe(t)
	t.Run("no walls", func(t *testing.T) {
		cmd := exec.Command("unshare", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--fork", "--mount-proc", probe)
		out, err := cmd.CombinedOutput()
		must(t, err)
		tried, _, _ := probed(string(out))
		refused := tried["refused"]
		// What this kernel does not have stands in the way everywhere.
		if free := len(tried["done"]) + len(tried["reached"]); free < 4*len(refused) {
			t.Errorf("outside of a container %d attempts get through, and %d do not: %v", free, len(refused), refused)
		}
		for _, name := range []string{"mount", "unshare user", "bpf", "keyctl", "raw socket", "reboot", "open /proc/sys/kernel/core_pattern", "attribute of overlay", "device made"} {
			if slices.Contains(refused, name) {
				t.Errorf("outside of a container %q is refused: the attempt is worth nothing", name)
			}
		}
	})
	attempts := tryWalls(t, newEngine(t), probe)
	t.Attr("F114", fmt.Sprintf("%d attempts by a program in a container, as root and as 1001: none gets through but what root may (chroot, chown); outside of a container most do", attempts))
}

// tryWalls lets the probe try in containers of the engine, and tells how much it
// tried in vain.
func tryWalls(t *testing.T, e *container.Engine, probe string) (attempts int) {
	content, err := os.ReadFile(probe)
	must(t, err)
	ref := imported(t, e, containertest.Image{Shell: true, Layers: [][]containertest.File{{
		{Path: "/probe", Content: string(content), Mode: 0o755},
		{Path: "/setuid-probe", Content: string(content), Mode: 0o4755},
	}}})
	for name, tt := range map[string]struct {
		user    daeploy.Owner
		allowed []string
		caps    string
	}{
		"root": {daeploy.Owner{}, []string{"chroot", "file of another's"}, "00000000800405fb"},
		"1001": {daeploy.Owner{UID: 1001, GID: 1001}, nil, "0000000000000000"},
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := workspace(t, e, ref)
			p := script("exec /probe")
			p.User = tt.user
			out, _ := run(t, w, p)
			tried, facts, mounts := probed(out)
			slices.Sort(tried["done"])
			if diff := cmp.Diff(tt.allowed, tried["done"]); diff != "" {
				t.Errorf("what it may do (-want +got):\n%s", diff)
			}
			if len(tried["reached"]) > 0 {
				t.Errorf("let through: %v\n%s", tried["reached"], out)
			}
			const none = "0000000000000000"
			want := map[string]string{
				"CapInh": none, "CapPrm": tt.caps, "CapEff": tt.caps, "CapBnd": tt.caps, "CapAmb": none,
				"NoNewPrivs": "1", "Seccomp": "2",
				"descriptors": "0 1 2",
				"devices":     "fd full init mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero <nil>",
			}
			for _, ns := range []string{"cgroup", "ipc", "mnt", "net", "pid", "uts"} {
				if ours, err := os.Readlink("/proc/self/ns/" + ns); err != nil || facts["namespace "+ns] == ours+" <nil>" {
					t.Errorf("namespace %s is the daemon's: %s, %v", ns, ours, err)
				}
				delete(facts, "namespace "+ns)
			}
			ours, err := os.Readlink("/proc/self/ns/user")
			must(t, err)
			mapped := facts["namespace user"] != ours+" <nil>"
			if has := hasIDs(t, e); has != mapped {
				t.Errorf("a user namespace of its own: %v; doctor says %v", mapped, has)
			}
			delete(facts, "namespace user")
			if diff := cmp.Diff(want, facts); diff != "" {
				t.Errorf("what it sees (-want +got):\n%s", diff)
			}
			outside := slices.DeleteFunc(slices.Sorted(maps.Keys(mounts)), func(point string) bool {
				return strings.HasPrefix(point, "/proc") || strings.HasPrefix(point, "/sys") || strings.HasPrefix(point, "/dev")
			})
			if diff := cmp.Diff([]string{"/", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf"}, outside); diff != "" {
				t.Errorf("mounts (-want +got):\n%s", diff)
			}
			attempts = len(tried["refused"])
			for point, options := range mounts {
				writable := slices.Contains([]string{"/", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/proc"}, point)
				// Root of a user namespace makes no devices: these are the host's.
				device := mapped && slices.Contains([]string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"}, point)
				masked := slices.Contains([]string{"/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug"}, point) // by /dev/null
				if !writable && !masked && !device && !strings.HasPrefix(options, "ro,") {
					t.Errorf("%s is mounted %s", point, options)
				}
			}
		})
	}
	return attempts
}

// buildProbe makes the program; it needs nothing of its image.
func buildProbe(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "probe")
	cmd := exec.Command("go", "build", "-o", file, "./containertest/probe")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return file
}

// probed sorts the probe's lines: names of attempts by what became of them, what it
// saw, and mount points with their options.
func probed(out string) (tried map[string][]string, facts, mounts map[string]string) {
	tried, facts, mounts = map[string][]string{}, map[string]string{}, map[string]string{}
	for line := range bytes.Lines([]byte(out)) {
		name, text, _ := strings.Cut(strings.TrimSpace(string(line)), ": ")
		outcome, _, _ := strings.Cut(text, ":")
		point, isMount := strings.CutPrefix(name, "mount ")
		switch {
		case outcome == "refused", outcome == "done", outcome == "reached":
			tried[outcome] = append(tried[outcome], name)
		case isMount:
			mounts[point] = text
		default:
			facts[name] = text
		}
	}
	return tried, facts, mounts
}
