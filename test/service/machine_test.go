package service_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// base is the recipe of the system that machines run: what the package depends
// on, a git client, and the other package manager.
var base = []string{
	"--variant=minbase",
	"--include=systemd,systemd-sysv,dbus,procps,iproute2,ca-certificates," +
		"containerd,runc,tini,containernetworking-plugins,iptables,git,openssh-client,rpm",
	"bookworm",
}

// machine is a Debian under systemd, in systemd-nspawn, with a network of its own
// that leads nowhere. Below dir, root is its root file system.
type machine struct {
	testing.TB
	dir    string
	nspawn *exec.Cmd
	gone   chan struct{} // closed when systemd-nspawn has ended
	ended  error         // how; to be read after that
}

// newMachine boots one that ends with the test.
func newMachine(t testing.TB) *machine {
	t.Helper()
	if os.Getenv("DAEPLOY_ISOLATED") != "1" || os.Geteuid() != 0 {
		t.Fatal("this test mounts and boots a system: it wants root and namespaces of its own; run: make test-systemd")
	}
	lower := baseSystem(t)
	m := &machine{TB: t, dir: t.TempDir()}
	for _, name := range []string{"upper", "work", "root", "containerd", "share"} {
		if err := os.Mkdir(m.path(name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", lower, m.path("upper"), m.path("work"))
	if err := syscall.Mount("overlay", m.path("root"), "overlay", 0, options); err != nil {
		t.Fatalf("mount the machine's root: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(m.path("root"), syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount the machine's root: %v", err)
		}
	})
	for name, text := range map[string]string{
		"etc/hosts": "127.0.0.1 localhost machine\n", "etc/hostname": "machine\n", "etc/machine-id": "",
		// Builds want a name server that is not loopback. Nobody answers there.
		"etc/resolv.conf": "nameserver 192.0.2.53\n",
	} {
		m.write(name, text, 0o644)
	}
	m.boot()
	t.Cleanup(m.stop)
	return m
}

// baseSystem gives the directory of the base system, made once for a recipe.
func baseSystem(t testing.TB) string {
	t.Helper()
	cache := os.Getenv("DAEPLOY_TEST_CACHE")
	if cache == "" {
		cache = t.TempDir()
	}
	sum := sha256.Sum256([]byte(strings.Join(base, "\n")))
	dir := filepath.Join(cache, "machine", fmt.Sprintf("%x", sum[:8]))
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	// Whole or not at all: it has another name until it is complete.
	tmp := dir + ".new"
	if err := os.RemoveAll(tmp); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	words := append([]string{"--quiet", "--format=directory"}, base...)
	cmd := exec.CommandContext(t.Context(), "mmdebstrap", append(words, tmp)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make the base system: %v\n%s", err, out)
	}
	t.Logf("base system made in %s", time.Since(began).Round(time.Second))
	if err := os.Rename(tmp, dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func (m *machine) path(names ...string) string {
	return filepath.Join(append([]string{m.dir}, names...)...)
}

// write makes a file of the machine; name is relative to its root.
func (m *machine) write(name, text string, mode os.FileMode) {
	m.Helper()
	p := m.path("root", name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		m.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), mode); err != nil {
		m.Fatal(err)
	}
}

func (m *machine) boot() {
	m.Helper()
	log, err := os.Create(m.path("nspawn.log"))
	if err != nil {
		m.Fatal(err)
	}
	defer log.Close()
	m.nspawn = exec.Command("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--boot", "--console=pipe",
		"--capability=all", "--system-call-filter=add_key keyctl bpf", "--private-network", "--machine=machine",
		// containerd's overlays cannot lie on an overlay.
		"--bind="+m.path("containerd")+":/var/lib/containerd", "--bind-ro="+m.path("share")+":/share",
		"--directory="+m.path("root"))
	m.nspawn.Env = append(os.Environ(), "SYSTEMD_NSPAWN_API_VFS_WRITABLE=1", "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY="+unified())
	m.nspawn.Stdout, m.nspawn.Stderr = log, log
	if err := m.nspawn.Start(); err != nil {
		m.Fatalf("start systemd-nspawn: %v", err)
	}
	m.gone = make(chan struct{})
	go func(cmd *exec.Cmd, gone chan<- struct{}) {
		m.ended = cmd.Wait()
		close(gone)
	}(m.nspawn, m.gone)
	m.await("the machine to boot", 2*time.Minute, func() error {
		state, err := m.try("systemctl", "is-system-running")
		if state != "running" && state != "degraded" {
			return fmt.Errorf("it is %s: %w", state, err)
		}
		return nil
	})
	m.unlock()
}

// reboot is systemctl reboot. systemd-nspawn leaves it to us to start again.
func (m *machine) reboot() {
	m.Helper()
	if out, err := m.try("systemctl", "reboot"); err != nil {
		m.Logf("systemctl reboot: %v\n%s", err, out) // it may go down in the middle of answering
	}
	select {
	case <-m.gone:
	case <-time.After(time.Minute):
		m.Fatal("the machine does not go down")
	}
	m.boot()
}

// unified is 1 if the machine can have cgroup v2: if this host's limits are not
// with v1.
func unified() string {
	controllers, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	if err == nil && strings.Contains(string(controllers), "memory") {
		return "1"
	}
	return "0"
}

// unlock lets the machine make cgroups, as a host may: under v1 systemd-nspawn
// leaves it none but systemd's own.
func (m *machine) unlock() {
	m.Helper()
	if unified() == "1" {
		return
	}
	for name := range strings.FieldsSeq("blkio cpu cpuacct cpuset devices freezer memory pids") {
		m.run("mount", "-o", "remount,bind,rw", "/sys/fs/cgroup/"+name)
	}
}

// stop powers the machine off.
func (m *machine) stop() {
	_, _ = m.try("systemctl", "poweroff", "--force") // it goes down in the middle of answering
	select {
	case <-m.gone:
	case <-time.After(30 * time.Second):
		m.Errorf("the machine does not power off")
		_ = m.nspawn.Process.Kill()
		<-m.gone
	}
}

// leader is the machine's process 1 as this host counts.
func (m *machine) leader() (string, error) {
	pid := m.nspawn.Process.Pid
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return "", err
	}
	children := strings.Fields(string(text))
	if len(children) == 0 {
		return "", errors.New("the machine is down")
	}
	return children[0], nil
}

// command is a program of the machine, run in it as root.
func (m *machine) command(ctx context.Context, words ...string) (*exec.Cmd, error) {
	leader, err := m.leader()
	if err != nil {
		return nil, err
	}
	enter := []string{"--target", leader, "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--", "env", "-i", "-C", "/root"}
	environment := []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive",
	}
	cmd := exec.CommandContext(ctx, "nsenter", append(append(enter, environment...), words...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.WaitDelay = 10 * time.Second
	return cmd, nil
}

// try runs a program and gives its output, both streams, without the last line end.
func (m *machine) try(words ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd, err := m.command(ctx, words...)
	if err != nil {
		return "", err
	}
	out, err := cmd.CombinedOutput()
	return strings.TrimRight(string(out), "\n"), err
}

// run is try for what must work.
func (m *machine) run(words ...string) string {
	m.Helper()
	out, err := m.try(words...)
	if err != nil {
		m.Fatalf("%s: %v\n%s\n%s", strings.Join(words, " "), err, out, m.journal())
	}
	return out
}

// journal is the end of what the service has logged.
func (m *machine) journal() string {
	text, err := m.try("journalctl", "-u", "daeploy", "--no-pager", "-n", "60", "-o", "cat")
	if err != nil {
		return err.Error()
	}
	return text
}

// await asks until there is no error any more.
func (m *machine) await(what string, most time.Duration, ask func() error) {
	m.Helper()
	deadline := time.Now().Add(most)
	for {
		err := ask()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(m.path("nspawn.log"))
			m.Fatalf("waited %s for %s: %v\n%s\n%s", most, what, err, m.journal(), bytes.TrimSpace(log))
		}
		select {
		case <-m.gone:
			m.Fatalf("systemd-nspawn ended: %v", m.ended)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
