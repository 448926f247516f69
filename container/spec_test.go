package container_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container"
)

var update = flag.Bool("update", false, "write the golden files anew")

// The whole sandbox, field by field (stack.md, section 10): whoever changes a
// wall changes a golden file. Of seccomp, which follows containerd's profile,
// only what must not be is looked at.
func TestSpec(t *testing.T) {
	build := daeploy.Process{
		Args: []string{"/usr/libexec/s2i/assemble"}, Env: []string{"PATH=/bin", "HOME=/root"}, Dir: "/opt/app", Hostname: "blog-17", Network: true,
		Limits: daeploy.Limits{Memory: 2 << 30, CPUs: 0.5, PIDs: 512, Disk: 10 << 30, Inodes: 1_000_000},
	}
	other := build
	other.User, other.Groups, other.Network, other.Limits = daeploy.Owner{UID: 1001}, []uint32{50}, false, daeploy.Limits{}
	other.Cache.Path = "/var/cache/app"
	for name, tt := range map[string]struct {
		process daeploy.Process
		unified bool
		ids     container.IDs
	}{
		"root-v1": {build, false, container.IDs{}}, "root-v2": {build, true, container.IDs{}}, "user-v2": {other, true, container.IDs{}},
		"mapped-v2": {other, true, container.DefaultIDs},
	} {
		t.Run(name, func(t *testing.T) {
			spec := container.GoldenSpec(tt.process, tt.unified, tt.ids)
			if spec.Linux.Seccomp == nil || spec.Linux.Seccomp.DefaultAction != "SCMP_ACT_ERRNO" {
				t.Error("seccomp does not refuse by default")
			} else {
				for _, rule := range spec.Linux.Seccomp.Syscalls {
					for _, call := range rule.Names {
						if (call == "mount" || call == "bpf" || call == "kexec_load") && rule.Action == "SCMP_ACT_ALLOW" {
							t.Errorf("seccomp allows %s", call)
						}
					}
				}
			}
			spec.Linux.Seccomp = nil
			got, err := json.MarshalIndent(spec, "", "  ")
			must(t, err)
			file := filepath.Join("testdata", "spec-"+name+".json")
			if *update {
				must(t, os.WriteFile(file, append(got, '\n'), 0o644))
			}
			want, err := os.ReadFile(file)
			must(t, err)
			if diff := cmp.Diff(string(want), string(got)+"\n"); diff != "" {
				t.Errorf("spec differs from %s; if that is meant, run with -update (-want +got):\n%s", file, diff)
			}
		})
	}
}

// F104.
func TestVersions(t *testing.T) {
	for version, ok := range map[string]bool{
		"1.6.20~ds1": true, "v1.6.20": true, "1.7.0-beta.1": true, "2.1.1": true, "v2.2.5": true, "10.0": true, "weird": true,
		"1.6.19": false, "v1.5.99": false, "0.9": false, "2.1.0": false, "v2.1.0+unknown": false,
	} {
		if err := container.CheckVersion(version); (err == nil) != ok {
			t.Errorf("version %s: %v, want it accepted: %v", version, err, ok)
		}
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 bytes", 1023: "1023 bytes", 1 << 10: "1 KiB", 10 << 30: "10 GiB", 10<<30 + 1<<28: "10.2 GiB"} {
		if got := container.Size(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}

func TestEnvironment(t *testing.T) {
	got := container.Environment([]string{"A=1", "PATH=/x", "B="}, []string{"B=2", "C=3"}, "PATH=/default", "HOME=/")
	if diff := cmp.Diff([]string{"A=1", "PATH=/x", "B=2", "C=3", "HOME=/"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// S115: what we do not know stays, value for value.
func FuzzAppendLayer(f *testing.F) {
	for _, seed := range []string{
		`{}`, `null`, `[]`, `{"rootfs":{"type":"layers","diff_ids":["sha256:` + "00" + `"]},"history":[{"x":1}],"n":30000000000000001}`,
		`{"config":{"Env":["A=<b>"],"x":null},"created":5}`, `{"rootfs":null,"history":null}`, `{"rootfs":7}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, config []byte) {
		text, err := container.AppendLayer(config)
		if err != nil {
			return
		}
		var before, after map[string]json.RawMessage
		must(t, json.Unmarshal(config, &before))
		must(t, json.Unmarshal(text, &after))
		for key, value := range before {
			if key == "rootfs" || key == "history" || key == "created" {
				continue
			}
			if diff := cmp.Diff(compact(t, value), compact(t, after[key])); diff != "" {
				t.Errorf("field %q (-want +got):\n%s", key, diff)
			}
		}
	})
}

func compact(t *testing.T, value json.RawMessage) string {
	t.Helper()
	text, err := json.Marshal(value)
	must(t, err)
	return string(text)
}
