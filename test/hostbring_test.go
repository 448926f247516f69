package test_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy/container/containertest"
)

// How a patient comes by what is wrong with it.

// missing stands for a configuration that is not there.
const missing = "missing"

func (p *patient) noConfig() { p.more = missing }

func (p *patient) noContainerd() { p.containerd = p.path("containerd.sock") }

func (p *patient) impostor(version string) {
	p.containerd = p.path("containerd.sock")
	containertest.Impostor(p, p.containerd, version)
}

// listen takes a socket that is to be containerd's, until the test ends.
func (p *patient) listen() net.Listener {
	p.Helper()
	p.containerd = p.path("containerd.sock")
	l, err := net.Listen("unix", p.containerd)
	p.must(err)
	p.Cleanup(func() { l.Close() })
	return l
}

// silentSocket is one whose program accepts nobody: the kernel does.
func (p *patient) silentSocket() { p.listen() }

func (p *patient) webSocket() {
	server := &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: time.Minute}
	l, ended := p.listen(), make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	p.Cleanup(func() {
		server.Close()
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			p.Error(err)
		}
	})
}

// rudeSocket is one whose program hangs up.
func (p *patient) rudeSocket() {
	l := p.listen()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // the test has ended
			}
			conn.Close()
		}
	}()
}

// cgroups1 shows the programs a hierarchy without the controller of memory.
func (p *patient) cgroups1() {
	p.inside("mount -t tmpfs tmpfs /sys/fs/cgroup && mkdir /sys/fs/cgroup/cpu /sys/fs/cgroup/pids")
}

// cgroups2 shows them the kernel's own version 2, without controllers: they are with
// version 1 here, or are hidden.
func (p *patient) cgroups2() {
	p.inside("mount -t cgroup2 cgroup2 /sys/fs/cgroup && mount --bind /dev/null /sys/fs/cgroup/cgroup.controllers")
}

// inside runs all programs after a line of shell, in mounts of their own.
func (p *patient) inside(line string) {
	p.before = []string{"unshare", "--mount", "sh", "-ec", line + ` && exec "$@"`, "sh"}
}

func (p *patient) takenPort() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	p.must(err)
	p.Cleanup(func() { l.Close() })
	p.ssh = l.Addr().String()
	p.known = []string{p.ssh, ":2222"}
}

// disk mounts a small one at the place of the state.
func (p *patient) disk() {
	p.must(os.Mkdir(p.state, 0o700))
	p.must(unix.Mount("tmpfs", p.state, "tmpfs", 0, "size=4m,mode=0700"))
	p.Cleanup(func() { p.must(unix.Unmount(p.state, unix.MNT_DETACH)) })
}

func (p *patient) fill() {
	fill, err := os.Create(filepath.Join(p.state, "fill"))
	p.must(err)
	defer fill.Close()
	for {
		if _, err := fill.Write(make([]byte, 4096)); err != nil {
			if !errors.Is(err, syscall.ENOSPC) {
				p.Fatal(err)
			}
			return
		}
	}
}

func (p *patient) readOnly() {
	p.disk()
	p.must(unix.Mount("", p.state, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
}

func (p *patient) fullAtFirst() {
	p.disk()
	p.fill()
}

func (p *patient) fullLater() {
	p.disk()
	p.once()
	p.fill()
}

// once runs a daemon until it is ready, so that there is a state.
func (p *patient) once() {
	p.Helper()
	end := p.start()
	end()
}

// start runs a daemon of a configuration of its own, until end is called.
func (p *patient) start() (end func()) {
	p.Helper()
	var out lockedBuffer
	cmd := exec.Command(program, "serve", "--config", os.DevNull, "--state-dir", p.state, "--socket", p.path("other.sock"),
		"--ssh-addr", "127.0.0.1:0", "--containerd", p.path("nowhere.sock"))
	cmd.Stdout, cmd.Stderr = &out, &out
	p.must(cmd.Start())
	gone := make(chan error, 1)
	go func() { gone <- cmd.Wait() }()
	p.known = append(p.known, fmt.Sprintf("process %d", cmd.Process.Pid), "process N")
	end = func() {
		p.Helper()
		p.must(cmd.Process.Signal(syscall.SIGTERM))
		if err := <-gone; err != nil {
			p.Fatalf("a daemon in good order: %v\n%s", err, &out)
		}
	}
	p.must(within(30*time.Second, func() error {
		if !strings.Contains(out.String(), "msg=ready") {
			return fmt.Errorf("a daemon is not ready:\n%s", &out)
		}
		return nil
	}))
	return end
}

func (p *patient) second() { p.Cleanup(p.start()) }

func (p *patient) foreign() {
	p.must(os.Mkdir(p.state, 0o700))
	p.must(os.Chown(p.state, 4711, 4711))
}

func (p *patient) open() {
	p.must(os.Mkdir(p.state, 0o700))
	p.must(os.Chmod(p.state, 0o777))
}

func (p *patient) file() { p.must(os.WriteFile(p.state, nil, 0o600)) }

func (p *patient) noDatabase() {
	p.once()
	p.must(os.Remove(filepath.Join(p.state, "daeploy.db")))
}

func (p *patient) newerDatabase() {
	p.once()
	name := filepath.Join(p.state, "instance.json")
	text, err := os.ReadFile(name)
	p.must(err)
	schema := regexp.MustCompile(`"schema":([0-9]+)`)
	p.known = []string{"knows " + schema.FindStringSubmatch(string(text))[1], "knows N", "schema 999", "schema M"}
	p.must(os.WriteFile(name, schema.ReplaceAll(text, []byte(`"schema":999`)), 0o600))
}

func (p *patient) openKey() {
	p.once()
	p.must(os.Chmod(filepath.Join(p.state, "ssh_host_ed25519_key"), 0o644))
}

func (p *patient) noKey() {
	p.once()
	p.must(os.Remove(filepath.Join(p.state, "ssh_host_ed25519_key")))
}

// clock leaves a database of a later time than it is: this host's clock is not
// touched.
func (p *patient) clock() {
	p.once()
	later := time.Now().AddDate(2, 0, 0)
	p.must(os.Chtimes(filepath.Join(p.state, "daeploy.db"), later, later))
}

func (p *patient) oldGit() {
	p.must(os.WriteFile(filepath.Join(p.path("bin"), "git"), []byte("#!/bin/sh\necho git version 2.30.2\n"), 0o755))
	p.env = []string{"PATH=" + p.path("bin") + ":" + os.Getenv("PATH")}
}
