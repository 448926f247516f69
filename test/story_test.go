package test_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/daeploy/daeploy/container/containertest"
)

// story is one daemon with its pushers: a state directory, keys, a namespace
// in containerd, a bridge.
type story struct {
	testing.TB // where failures go

	work           string // everything lies below it
	number         int64
	containerd     *containertest.Daemon
	private        bool // containerd is this story's own
	moves          int  // how often it went to a new host
	daemon         *exec.Cmd
	gone           chan error // how it ended
	port           string
	metrics        string // address, if it is on
	builders       bool   // the fixture images are there, or not wanted
	defaultBuilder string
	background     map[string]*followed // pushes that go on
	registry       *containertest.Distribution
	githost        *githost
	receiver       *atomic.Int64 // the status it answers, 0 for none
	secrets        string        // directory on a tmpfs
	env            []string      // what the daemon's environment has besides
	mayStray       bool          // containerd is killed so often that it may forget a shim
	strays         int           // how many it has forgotten
}

// followed is a command in the background.
type followed struct {
	cmd      *exec.Cmd
	out, err lockedBuffer
}

// lockedBuffer can be read while it is written.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

var stories atomic.Int64

func newStory(t testing.TB, work string) *story {
	return &story{TB: t, work: work, secrets: containertest.TmpfsDir(t), number: stories.Add(1), containerd: shared, defaultBuilder: "daeploy.local/builders/test:1", background: map[string]*followed{}}
}

func (s *story) path(names ...string) string {
	return filepath.Join(append([]string{s.work}, names...)...)
}

// namespace is this story's own: runc knows containers by it, host-wide.
func (s *story) namespace() string {
	name := fmt.Sprintf("%s-%d", s.containerd.Namespace, s.number)
	if s.moves > 0 {
		name += fmt.Sprintf(".%d", s.moves)
	}
	return name
}

const configText = `
state_dir = %q
socket = %q
ssh_addr = "127.0.0.1:0"
secrets_dir = %q
containerd = %q
namespace = %q
default_builder = %q
%s
[network]
bridge = "story%d"
subnet = "10.209.%d.0/24"
%s`

// caLine names a CA bundle to builds: the story's own, or the host's, without
// which nothing can be fetched behind a proxy that answers for others.
func (s *story) caLine() string {
	for _, bundle := range []string{s.path("ca.pem"), "/etc/ssl/certs/ca-certificates.crt"} {
		if _, err := os.Stat(bundle); err == nil {
			return fmt.Sprintf("ca_bundle = %q", bundle)
		}
	}
	return ""
}

var readyLine = regexp.MustCompile(`msg=ready ssh=127\.0\.0\.1:([0-9]+) socket=\S+(?: metrics=(\S+))?`)

// serve starts the daemon and waits until it is ready. more is added to its
// configuration: what stands before its first table belongs to the top.
func (s *story) serve(more string) error {
	from, err := s.launch(more)
	if err != nil {
		return err
	}
	if err := s.ready(from); err != nil || s.builders {
		return err
	}
	s.builders = true
	return s.importFixtures()
}

// launch starts the daemon, and tells where in its log it begins.
func (s *story) launch(more string) (from int64, err error) {
	top, tables := more, ""
	if first := strings.Index("\n"+more, "\n["); first >= 0 {
		top, tables = more[:first], strings.TrimPrefix(more[first:], "[network]\n") // which goes on with ours
	}
	if !strings.Contains(top, "max_builds") {
		top += "\nmax_builds = 2"
	}
	if !strings.Contains(top, "disk_reserve") {
		top += "\ndisk_reserve = \"1GiB\"" // a share of the disk is a matter of who else fills it
	}
	config := fmt.Sprintf(configText, s.path("state"), s.path("daeploy.sock"), s.secrets, s.containerd.Address, s.namespace(), s.defaultBuilder, s.caLine()+"\n"+top, s.number, s.number, tables)
	if err := os.WriteFile(s.path("daeploy.toml"), []byte(config), 0o600); err != nil {
		return 0, err
	}
	log, err := os.OpenFile(s.path("daemon.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	if from, err = log.Seek(0, 2); err != nil {
		return 0, err
	}
	s.daemon = exec.Command(program, "serve", "--config", s.path("daeploy.toml"))
	s.daemon.Stdout, s.daemon.Stderr = log, log
	s.daemon.Env = append(os.Environ(), s.env...)
	if s.githost != nil {
		s.daemon.Env = append(s.daemon.Env, "NO_PROXY=127.0.0.1", "no_proxy=127.0.0.1")
	}
	if err := s.daemon.Start(); err != nil {
		return 0, err
	}
	s.gone = make(chan error, 1)
	go func(d *exec.Cmd, gone chan<- error) { gone <- d.Wait() }(s.daemon, s.gone)
	return from, nil
}

// ready waits until the daemon, whose log begins there, lets people in.
func (s *story) ready(from int64) error {
	return within(20*time.Second, func() error {
		var ended error
		over := false
		select {
		case ended = <-s.gone:
			over, s.daemon = true, nil
		default:
		}
		text, err := s.said(from)
		switch m := readyLine.FindSubmatch(text); {
		case over:
			return final{fmt.Errorf("the daemon ended: %w\n%s", errors.Join(ended, err), text)}
		case err != nil:
			return err
		case m != nil:
			s.port, s.metrics = string(m[1]), string(m[2])
			return nil
		}
		return fmt.Errorf("the daemon is not ready:\n%s", text)
	})
}

// said is what the daemon's log has from there on.
func (s *story) said(from int64) ([]byte, error) {
	log, err := os.Open(s.path("daemon.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	if _, err := log.Seek(from, io.SeekStart); err != nil {
		return nil, err
	}
	return io.ReadAll(log)
}

// final is an error that another try cannot mend.
type final struct{ error }

// within tries do until it succeeds, or gives its last error.
func within(most time.Duration, do func() error) error {
	for end := time.Now().Add(most); ; time.Sleep(20 * time.Millisecond) {
		err := do()
		if err == nil || time.Now().After(end) || errors.As(err, new(final)) {
			return err
		}
	}
}

const stockAssemble = `#!/bin/sh
set -e
echo "stock assemble of ${DAEPLOY_APP}/${DAEPLOY_BUILD} as $(id -u):$(id -g)"
mkdir -p /app
cp -a /tmp/src/. /app/
`

const stockRun = `#!/bin/sh
echo "stock run of a.txt: $(cat /app/a.txt)"
`

// stockBuilder is the builder that most stories use.
func stockBuilder() containertest.Image {
	return containertest.Image{
		Name: "daeploy.local/builders/test:1", Shell: true,
		Config: map[string]any{
			"Env": []string{"PATH=/bin"}, "WorkingDir": "/app", "User": "1001",
			"Labels": map[string]string{"io.openshift.s2i.scripts-url": "image:///usr/libexec/s2i", "io.openshift.s2i.assemble-user": "0"},
		},
		Layers: [][]containertest.File{{
			containertest.Script("usr/libexec/s2i/assemble", stockAssemble), containertest.Script("usr/libexec/s2i/run", stockRun),
		}},
	}
}

// importFixtures brings the builder images of the stories in by the front door.
func (s *story) importFixtures() error {
	stock := stockBuilder()
	for _, image := range []containertest.Image{
		stock,
		{Name: "daeploy.local/builders/plain:1", Shell: true},
		{Name: "daeploy.local/builders/onbuild:1", Shell: true, Layers: stock.Layers, Config: map[string]any{"OnBuild": []string{"RUN true"}}},
	} {
		if err := s.importImage(image); err != nil {
			return err
		}
	}
	return nil
}

func (s *story) importImage(image containertest.Image) error {
	cmd := exec.Command(program, "--socket", s.path("daeploy.sock"), "builders", "import", "-")
	cmd.Stdin = bytes.NewReader(containertest.Archive(s.TB, image))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("import %s: %w\n%s", image.Name, err, out)
	}
	return nil
}

// end sends the daemon a signal and waits until it is gone.
func (s *story) end(sig syscall.Signal) error {
	if s.daemon == nil {
		return nil
	}
	d := s.daemon
	s.daemon = nil
	if err := d.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case err := <-s.gone:
		if sig == syscall.SIGTERM && err != nil {
			return fmt.Errorf("the daemon did not end in good order: %w", err)
		}
		return nil
	case <-time.After(15 * time.Second):
		_ = d.Process.Kill() // it hangs: the error says so
		return errors.New("the daemon does not end")
	}
}

// close ends what the story began.
func (s *story) close() {
	for _, f := range s.background {
		_ = syscall.Kill(-f.cmd.Process.Pid, syscall.SIGKILL) // usually gone already
		_ = f.cmd.Wait()
	}
	if err := s.end(syscall.SIGTERM); err != nil {
		s.Error(err)
	}
	if s.githost != nil {
		s.githost.Close()
	}
	if s.registry != nil {
		if err := s.registry.Close(); err != nil {
			s.Error(err)
		}
	}
	if s.private {
		if err := s.containerd.Stop(); err != nil {
			s.Error(err)
		}
	}
}

// sshArgs are the words of an ssh of this story before the host.
func (s *story) sshArgs(who string) []string {
	return []string{
		"-F", "/dev/null", "-i", s.path("key-" + who), "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no",
		"-o", "UserKnownHostsFile=" + s.path("known_hosts"), "-o", "LogLevel=ERROR", "-o", "BatchMode=yes", "-p", s.port,
	}
}

func (s *story) url(app string) string {
	return fmt.Sprintf("ssh://daeploy@127.0.0.1:%s/%s", s.port, app)
}

// makeKey makes a key pair for somebody.
func (s *story) makeKey(name string) error {
	return exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", s.path("key-"+name)).Run()
}

// ask runs a command of the local client.
func (s *story) ask(words ...string) (string, error) { return s.give("", words...) }

// give runs one that reads its standard input.
func (s *story) give(stdin string, words ...string) (string, error) {
	cmd := exec.Command(program, append([]string{"--socket", s.path("daeploy.sock")}, words...)...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("daeploy %s: %w\n%s", strings.Join(words, " "), err, errs.String())
	}
	return out.String(), nil
}

// imageConfig reads an image's config and manifest, past the daemon, indented.
func (s *story) imageConfig(name string) ([]byte, error) {
	client, err := containerd.New(s.containerd.Address, containerd.WithDefaultNamespace(s.namespace()))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ctx := s.Context()
	image, err := client.GetImage(ctx, name)
	if err != nil {
		return nil, err
	}
	config, err := image.Config(ctx)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	for _, d := range []ocispec.Descriptor{config, image.Target()} {
		text, err := content.ReadBlob(ctx, image.ContentStore(), d)
		if err != nil {
			return nil, err
		}
		if err := json.Indent(&out, text, "", " "); err != nil {
			return nil, err
		}
		out.WriteByte('\n')
	}
	return out.Bytes(), nil
}

// ctr asks containerd, past the daemon.
func (s *story) ctr(words ...string) (string, error) {
	out, err := exec.Command("ctr", append([]string{"-a", s.containerd.Address, "-n", s.namespace()}, words...)...).Output()
	if err != nil {
		return "", fmt.Errorf("ctr %s: %w", strings.Join(words, " "), err)
	}
	return string(out), nil
}
