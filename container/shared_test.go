package container_test

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container"
	"github.com/daeploy/daeploy/container/containertest"
)

// What the kernel has only so much of, for all of a host, a build has its part of.

func withProbe(t *testing.T, e *container.Engine) daeploy.ImageRef {
	t.Helper()
	content, err := os.ReadFile(buildProbe(t))
	must(t, err)
	return imported(t, e, containertest.Image{Shell: true, Layers: [][]containertest.File{{{Path: "/probe", Content: string(content), Mode: 0o755}}}})
}

func online(line string) daeploy.Process {
	p := script(line)
	p.Network = true
	return p
}

// TestTerminals: F114.
func TestTerminals(t *testing.T) {
	e := newEngine(t)
	w, _ := workspace(t, e, withProbe(t, e))
	if out, _ := run(t, w, script("ulimit -n 8192; exec /probe terminals")); out != "256 no space left on device\n" {
		t.Errorf("terminals opened: %s", out)
	}
	t.Attr("F114", "a build opens one pseudo-terminal after the other: it has 256 of the 4,096 of a host")
}

// TestFlows: F112. Connections that the kernel tracks stay after their end, and where it
// tracks as many as it may, nobody connects to the host.
func TestFlows(t *testing.T) {
	plugWorld(t)
	e := newEngine(t, func(*container.Config) {})
	ref := withProbe(t, e)
	connect := "nc -w 1 " + world + " 80 </dev/null 2>/dev/null || echo nothing"
	tracked := func() int {
		text, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
		must(t, err)
		n, err := strconv.Atoi(strings.TrimSpace(string(text)))
		must(t, err)
		return n
	}
	before := tracked()
	w, _ := workspace(t, e, ref)
	if out, _ := run(t, w, online("/probe flows "+world+"; "+connect)); out != "sent\nnothing\n" {
		t.Errorf("a build with as many flows as it may have connects: %q", out)
	}
	if n := tracked() - before; n < 4000 || n > 4200 {
		t.Errorf("%d flows are tracked; want as many as a build may have, 4096, and few of others", n)
	}
	other, _ := workspace(t, e, ref)
	if out, _ := run(t, other, online(connect)); out != "hello "+ourselves+"\n" {
		t.Errorf("another build connects: %q", out)
	}
	t.Attr("F112", "a build sends packets to 10,000 ports: the kernel tracks 4,096 connections of it, and another build connects")
}

// TestNeighbourTable: F112. The kernel knows so many neighbours in all network namespaces
// together; a host that may ask after no more of them is off its network.
func TestNeighbourTable(t *testing.T) {
	plugWorld(t)
	e := newEngine(t, func(*container.Config) {})
	w, _ := workspace(t, e, withProbe(t, e))
	const want = "1 addresses, 1 neighbours <nil>\nhello " + ourselves + "\n"
	if out, _ := run(t, w, online("nc -w 1 "+world+" 80 </dev/null >/tmp/said; /probe neighbours; cat /tmp/said")); out != want {
		t.Errorf("a build says %q, want %q", out, want)
	}
	t.Attr("F112", "a build sends packets to 5,000 addresses of its own network: its gateway is all that the kernel asks after")
}
