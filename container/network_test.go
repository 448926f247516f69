package container_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container"
	"github.com/daeploy/daeploy/container/containertest"
)

// The outside world of the network tests: a network namespace behind a cable.
const (
	worldWord = "world"
	world     = "198.51.100.53"   // also the name server
	metadata  = "169.254.169.254" // a cloud's secrets
	private   = "172.16.7.7"
	ourselves = "198.51.100.1"
	world6    = "fd53::53"
	we6       = "fd53::1"
)

// beWorld is what the test binary does in the world's namespace: once the cable
// is there, it has all addresses and says hello on all ports asked for.
func beWorld() error {
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	for _, words := range []string{
		"link set lo up", "link set cable1 up", "addr add " + world + "/24 dev cable1", "addr add " + metadata + "/32 dev lo",
		"addr add " + private + "/32 dev lo", "addr add " + metadata6 + "/128 dev lo", "addr add " + world6 + "/64 dev cable1 nodad",
		"route add default via " + ourselves,
	} {
		if out, err := exec.Command("ip", strings.Fields(words)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", words, err, out)
		}
	}
	for _, port := range []string{":53", ":80"} {
		l, err := net.Listen("tcp", port)
		if err != nil {
			return err
		}
		go sayHello(l)
	}
	conn, err := net.ListenPacket("udp4", ":53")
	if err != nil {
		return err
	}
	go answerNames(conn)
	fmt.Println("ready")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func sayHello(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
		fmt.Fprintln(c, "hello", host)
		c.Close()
	}
}

// plugWorld starts the world and lays the cable.
func plugWorld(t *testing.T) {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command("unshare", "--net", self, worldWord)
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	t.Cleanup(func() {
		// The kernel would do so in its own time, and the next world wants a cable too.
		_ = exec.Command("ip", "link", "delete", "cable0").Run()
		in.Close()
		must(t, cmd.Wait())
	})
	// unshare has made the namespace when the program it starts is there.
	for exe := ""; exe != self; {
		exe, _ = os.Readlink(fmt.Sprintf("/proc/%d/exe", cmd.Process.Pid))
	}
	ip := func(words string) {
		t.Helper()
		if out, err := exec.Command("ip", strings.Fields(words)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", words, err, out)
		}
	}
	ip(fmt.Sprintf("link add cable0 type veth peer name cable1 netns %d", cmd.Process.Pid))
	ip("addr add " + ourselves + "/24 dev cable0")
	ip("addr add " + we6 + "/64 dev cable0 nodad")
	ip("link set cable0 up")
	ip("route add " + metadata + " via " + world)
	ip("route add " + private + " via " + world)
	fmt.Fprintln(in)
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("world says %q, %v", line, err)
	}
}

// S135, F112, F113.
func TestNetwork(t *testing.T) {
	plugWorld(t)
	l, err := net.Listen("tcp4", ":8080")
	must(t, err)
	go sayHello(l)
	defer l.Close()
	var cfg container.Config
	e := newEngine(t, func(c *container.Config) { cfg = *c })
	ref := imported(t, e, containertest.Image{Shell: true})
	probe := `try() { echo "$1 $(nc -w 1 $2 $3 </dev/null 2>/dev/null)"; }
try world ` + world + ` 80
try resolver ` + world + ` 53
try metadata ` + metadata + ` 80
try mapped 0xa9fea9fe 80
try private ` + private + ` 80
try gateway 10.209.0.1 8080
try host ` + ourselves + ` 8080
try loopback 127.0.0.1 8080
try neighbour $NEIGHBOUR 9000
cat /etc/resolv.conf`

	neighbour, _ := workspace(t, e, ref)
	serve := script("echo ready; nc -l -p 9000 -e echo hello")
	serve.Network = true
	must(t, neighbour.Start(t.Context(), serve))
	there, err := filepath.Glob(cfg.Rules.Network.DataDir + "/" + cfg.Rules.Network.Bridge + "/10.*")
	if err != nil || len(there) != 1 {
		t.Fatalf("addresses given out: %v, %v", there, err)
	}

	for _, open := range []bool{true, false} {
		e := newEngine(t, func(c *container.Config) {
			c.Rules.Network = cfg.Rules.Network
			c.Rules.Network.AllowPrivate = open
		})
		w, _ := workspace(t, e, ref)
		p := script(probe)
		p.Network, p.Env = true, append(p.Env, "NEIGHBOUR="+filepath.Base(there[0]))
		got, _ := run(t, w, p)
		want := "world hello " + ourselves + "\nresolver hello " + ourselves + "\nmetadata \nmapped \nprivate "
		if open {
			want += "hello " + ourselves
		}
		want += "\ngateway \nhost \nloopback \nneighbour \nnameserver 198.51.100.53\nsearch example.org\n"
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("private ranges open: %v (-want +got):\n%s", open, diff)
		}
		must(t, w.Close(t.Context()))
	}
	t.Run("rules", func(t *testing.T) { rulesStand(t, cfg.Rules.Network.Bridge) })
	t.Run("flushed", func(t *testing.T) { rulesFlushed(t, e, ref, cfg.Rules.Network.Bridge, filepath.Base(there[0])) })
	// That nobody reached the neighbour means something only if it was there.
	c, err := net.Dial("tcp4", filepath.Base(there[0])+":9000")
	must(t, err)
	if text, err := io.ReadAll(c); err != nil || string(text) != "hello\n" {
		t.Errorf("neighbour says %q, %v", text, err)
	}
	c.Close()
	t.Run("rules kept", func(t *testing.T) { rulesKept(t, e, ref, cfg.Rules.Network.Bridge) })
	must(t, neighbour.Close(t.Context()))
	for _, pattern := range []string{"/" + cfg.Rules.Network.Bridge + "/10.*", "/tasks/*"} {
		if left, _ := filepath.Glob(cfg.Rules.Network.DataDir + pattern); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
	// The kernel takes network namespaces down in its own time.
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		out, _ := exec.Command("ip", "-o", "link", "show", "master", cfg.Rules.Network.Bridge).Output()
		if len(out) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("ports left on the bridge: %s", out)
		}
	}

	off := newEngine(t)
	w, _ := workspace(t, off, ref)
	if out, _ := run(t, w, script("ip -o addr | grep -v 127.0.0.1; nc -w 1 "+world+" 80 </dev/null; cat /etc/resolv.conf")); strings.Contains(out, "hello") || strings.Contains(out, "nameserver") {
		t.Errorf("without network: %q", out)
	}
	t.Attr("F113", "all rules of the firewall flushed while two builds run: they do not reach each other even so, and the next container's start puts all rules back, for the running ones too")
	t.Attr("F112", "a build tries metadata, also in hexadecimal, the host by two addresses, loopback, a neighbour, a private range open and closed: nothing but what is open answers, and the resolver")
}

// rulesStand: each jump is first and there once, however often rules were set.
func rulesStand(t *testing.T, bridge string) {
	for _, jump := range [][]string{{"iptables", "filter", "FORWARD", "-forward"}, {"iptables", "filter", "INPUT", "-input"}, {"iptables", "nat", "POSTROUTING", "-nat"}, {"ip6tables", "filter", "FORWARD", "-forward"}} {
		out, err := exec.Command(jump[0], "-w", "-t", jump[1], "-S", jump[2]).Output()
		must(t, err)
		rule := "-A " + jump[2] + " -j " + bridge + jump[3]
		if lines := strings.Split(string(out), "\n"); lines[1] != rule || strings.Count(string(out), rule) != 1 {
			t.Errorf("%s %s:\n%s\nwant first and once: %s", jump[0], jump[2], out, rule)
		}
	}
}

// rulesKept: where all rules stand, a container's start does not write them anew: they
// go on counting.
func rulesKept(t *testing.T, e *container.Engine, ref daeploy.ImageRef, bridge string) {
	counted := func() (packets int) {
		out, err := exec.Command("iptables-save", "-c", "-t", "filter").Output()
		must(t, err)
		for line := range strings.Lines(string(out)) {
			var n, bytes int
			if _, err := fmt.Sscanf(line, "[%d:%d] -A "+bridge+"-input ", &n, &bytes); err == nil {
				packets += n
			}
		}
		return packets
	}
	before := counted()
	w, _ := workspace(t, e, ref)
	p := script("true")
	p.Network = true
	run(t, w, p)
	must(t, w.Close(t.Context()))
	if after := counted(); before == 0 || after < before {
		t.Errorf("%d packets counted, %d after one more start", before, after)
	}
}

// F113: what a runtime says of a hook that failed, in 1.1 and since 1.2.
func TestHookWords(t *testing.T) {
	for _, text := range []string{
		"OCI runtime create failed: runc create failed: unable to start container process: error during container init: error running hook #0: error running hook: exit status 1",
		"OCI runtime create failed: runc create failed: unable to start container process: error during container init: error running createRuntime hook #0: exit status 1",
	} {
		if _, ok := errors.AsType[*daeploy.Error](container.StartError(errors.New(text))); !ok {
			t.Errorf("%q is not told as the network's fault", text)
		}
	}
}

// F113: never unprotected.
func TestNetworkRefused(t *testing.T) {
	tests := map[string]func(*container.Config){
		"no plugins":   func(c *container.Config) { c.Rules.Network.PluginDirs = []string{"/nonexistent"} },
		"hook crashes": func(c *container.Config) { c.Hook = []string{"/bin/false"} },
		"no hook":      func(c *container.Config) { c.Hook = nil },
		"no resolver":  func(c *container.Config) { c.ResolvConf = []string{"/nonexistent"} },
		"addresses used up": func(c *container.Config) {
			c.Rules.Network.Bridge, c.Rules.Network.Subnet = "daeploytest1", "10.210.0.0/29"
			dir := filepath.Join(c.Rules.Network.DataDir, "daeploytest1")
			must(t, os.MkdirAll(dir, 0o700))
			for i := range 8 {
				must(t, os.WriteFile(fmt.Sprintf("%s/10.210.0.%d", dir, i), []byte("other\r\neth0"), 0o600))
			}
		},
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t, change)
			w, _ := workspace(t, e, imported(t, e, containertest.Image{Shell: true}))
			p := script("echo it runs")
			p.Network = true
			err := w.Start(t.Context(), p)
			if _, ok := errors.AsType[*daeploy.Error](err); !ok {
				t.Fatalf("Start: %v, want a refusal with words", err)
			}
			t.Log(err)
			if started, err := w.Started(t.Context()); started || err != nil {
				t.Errorf("Started = %v, %v", started, err)
			}
		})
	}
	t.Attr("F113", "no plugin, a hook that crashes or is not there, no resolver, no address left: nothing is started, and it is said why")
}
