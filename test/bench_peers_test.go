package test_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/daeploy/daeploy/test/benchmark"
)

// peer is another way from a push to an image: a hook behind OpenSSH's sshd.
type peer struct {
	name, program, packages string
	hook                    string // a script; $DIR is the peers' directory, $rev the commit
}

// Debian's own, also where another docker comes first in PATH.
const (
	sshdProgram    = "/usr/sbin/sshd"
	dockerdProgram = "/usr/sbin/dockerd"
)

var (
	docker = peer{"OpenSSH + docker build", "/usr/bin/docker", "docker.io", `
git archive --add-file="$DIR/docker/Dockerfile" $rev | /usr/bin/docker -H unix://$DIR/docker.sock build -q --no-cache -t $app:1 -
`}
	buildah = peer{"OpenSSH + buildah bud", "/usr/bin/buildah", "buildah", `
mkdir context
git archive $rev | tar -x -C context
/usr/bin/buildah --root $DIR/buildah/root --runroot $DIR/buildah/run --storage-driver overlay bud -q --pull-never -t localhost/$app:1 -f $DIR/buildah/Dockerfile context
`}
)

// hookHead and hookEnd stand around a peer's. A hook after the fact cannot fail a push, so
// it says that it came to its end.
const (
	hookHead = "#!/bin/sh -e\nDIR=%s app=%s\nread -r old rev ref\n"
	hookEnd  = "echo built $app\n"
)

const dockerfile = `FROM %s
COPY . /tmp/src/
RUN ` + appScript + `
`

// peers is a host where sshd listens, and the peers that are there.
type peers struct {
	*gauge
	dir, port string
	there     []peer
}

// newSSHD starts sshd, which ends with the test: port is empty if it is absent, or the
// scale wants no peers.
func (r *gauge) newSSHD() *peers {
	r.Helper()
	p := &peers{gauge: r, dir: r.path("peers")}
	if r.peers && p.has(sshdProgram, "openssh-server") {
		r.must(os.MkdirAll(filepath.Join(p.dir, "docker"), 0o755))
		r.must(os.MkdirAll(filepath.Join(p.dir, "buildah"), 0o755))
		p.startSSHD()
	}
	return p
}

// newPeers starts sshd, and dockerd too.
func (r *gauge) newPeers() *peers {
	r.Helper()
	p := r.newSSHD()
	if p.port == "" {
		return p
	}
	base := filepath.Join(p.dir, "base")
	r.must(os.Mkdir(base, 0o755))
	r.bundle(base)
	rootfs := filepath.Join(p.dir, "base.tar")
	r.do("tar", "-C", filepath.Join(base, "rootfs"), "-cf", rootfs, ".")
	if p.has(docker.program, docker.packages) && p.has(dockerdProgram, docker.packages) {
		p.startDocker(rootfs)
	}
	if p.has(buildah.program, buildah.packages) {
		p.startBuildah(rootfs)
	}
	return p
}

// has says whether a program is there; the page tells of one that is not.
func (p *peers) has(program, packages string) bool {
	if _, err := os.Stat(program); err == nil {
		return true
	}
	note := fmt.Sprintf("%s is absent, so nothing is compared with it; `make bench-peers` installs it.", packages)
	p.Notes = append(p.Notes, note)
	fmt.Println(note)
	return false
}

// sshdConfig lets bash believe that it is not the first shell: what the account's own
// .bashrc does is no part of OpenSSH.
const sshdConfig = `
SetEnv SHLVL=1
Port %s
ListenAddress 127.0.0.1
HostKey %s
AuthorizedKeysFile %s
PidFile none
StrictModes no
UsePAM no
PermitRootLogin yes
PasswordAuthentication no
`

func (p *peers) startSSHD() {
	p.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") // its port is free, as nobody else is in this network
	p.must(err)
	_, p.port, err = net.SplitHostPort(l.Addr().String())
	p.must(err)
	p.must(l.Close())
	key, config := filepath.Join(p.dir, "host-key"), filepath.Join(p.dir, "sshd_config")
	p.do("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
	p.must(os.WriteFile(config, fmt.Appendf(nil, sshdConfig, p.port, key, p.path("key-anna.pub")), 0o600))
	p.must(os.MkdirAll("/run/sshd", 0o755)) // as its own unit would
	p.background(sshdProgram, "-D", "-e", "-f", config)
	p.must(within(10*time.Second, func() error {
		conn, err := net.Dial("tcp", "127.0.0.1:"+p.port)
		if err == nil {
			err = conn.Close()
		}
		return err
	}))
}

// startDocker starts a daemon that shares nothing with one of the host.
func (p *peers) startDocker(rootfs string) {
	p.Helper()
	in := func(name string) string { return filepath.Join(p.dir, "docker", name) }
	p.must(os.WriteFile(in("daemon.json"), []byte("{}"), 0o600))
	p.must(os.WriteFile(in("Dockerfile"), fmt.Appendf(nil, dockerfile, "base:1"), 0o644))
	socket := "unix://" + filepath.Join(p.dir, "docker.sock")
	p.background(dockerdProgram, "--config-file", in("daemon.json"), "--data-root", in("root"), "--exec-root", in("exec"),
		"--host", socket, "--pidfile", in("pid"))
	p.must(within(time.Minute, func() error { return exec.Command(docker.program, "-H", socket, "version").Run() }))
	p.do(docker.program, "-H", socket, "import", rootfs, "base:1")
	p.add(docker)
}

func (p *peers) startBuildah(rootfs string) {
	p.Helper()
	in := func(name string) string { return filepath.Join(p.dir, "buildah", name) }
	p.must(os.WriteFile(in("Dockerfile"), fmt.Appendf(nil, dockerfile, "localhost/base:1"), 0o644))
	ours := []string{"--root", in("root"), "--runroot", in("run"), "--storage-driver", "overlay"}
	p.do(buildah.program, append(ours, "from", "--name", "base", "scratch")...)
	p.do(buildah.program, append(ours, "add", "base", rootfs, "/")...)
	p.do(buildah.program, append(ours, "commit", "-q", "--rm", "base", "localhost/base:1")...)
	p.add(buildah)
}

// add counts a peer among those that are there, and on the page.
func (p *peers) add(peer peer) {
	p.Helper()
	p.there = append(p.there, peer)
	p.Host += ", " + firstLine(p.TB, peer.program, "--version")
}

// background runs a program until the test ends.
func (p *peers) background(program string, args ...string) {
	p.Helper()
	log, err := os.Create(filepath.Join(p.dir, filepath.Base(program)+".log"))
	p.must(err)
	defer log.Close()
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	p.must(cmd.Start())
	p.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			p.Error(err)
		}
		_ = cmd.Wait() // a signal ended it
	})
}

// ssh are options for git's ssh; url is where sshd has a repository.
func (p *peers) ssh() []string         { return []string{"-p", p.port} }
func (p *peers) url(dir string) string { return "ssh://root@127.0.0.1:" + p.port + dir }

// storedAt is a repository at a peer.
type storedAt struct {
	peer
	dir string
}

// firstPush takes the first push of the repository to each of these that is there.
func (p *peers) firstPush(prefix, dir string, all ...peer) {
	p.Helper()
	for _, peer := range all {
		if at := p.open(peer); at != nil {
			p.nextPush(prefix, dir, at)
		}
	}
}

// open makes an empty repository at a peer; nil if the peer is not there.
func (p *peers) open(wanted peer) *storedAt {
	p.Helper()
	for _, there := range p.there {
		if there.name != wanted.name {
			continue
		}
		at := &storedAt{there, filepath.Join(p.dir, p.newApp()+".git")}
		p.do("git", "init", "-q", "--bare", at.dir)
		return at
	}
	return nil
}

// stored is a repository at a peer where all is already, without a build of it.
func (p *peers) stored(dir string, wanted peer) *storedAt {
	p.Helper()
	at := p.open(wanted)
	if at != nil {
		p.git(dir, "push", "-q", at.dir, "main")
	}
	return at
}

// nextPush takes a push with a build to a peer.
func (p *peers) nextPush(prefix, dir string, at *storedAt) {
	p.Helper()
	if at == nil {
		return
	}
	push := p.push(dir, at)
	p.time(prefix+at.name, benchmark.Peer, func() { p.must(push()) })
}

// push is a push to a peer that ends with its build.
func (p *peers) push(dir string, at *storedAt) func() error {
	p.Helper()
	app := strings.TrimSuffix(filepath.Base(at.dir), ".git")
	p.write(filepath.Join(at.dir, "hooks/post-receive"), fmt.Sprintf(hookHead, p.dir, app)+at.hook+hookEnd)
	git := p.gitCommand(dir, p.ssh(), "push", "-q", p.url(at.dir), "main")
	return func() error {
		out, err := git.CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte("built "+app)) {
			return fmt.Errorf("%s did not build (%v):\n%s", at.name, err, out)
		}
		return nil
	}
}

// firstPushes are pushes of the repository to new repositories of a peer.
func (p *peers) firstPushes(dir string, to peer) (pushes []func() error) {
	p.Helper()
	for range p.together {
		pushes = append(pushes, p.push(dir, p.open(to)))
	}
	return pushes
}
