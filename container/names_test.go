package container_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/daeploy/daeploy/container"
	"github.com/daeploy/daeploy/container/containertest"
)

// metadata6 is where a cloud has its secrets by IPv6.
const metadata6 = "fd00:ec2::254"

// names are what the world's name server knows.
var names = map[string]string{
	"honest.example.org": world, "secrets.example.org": metadata, "secrets6.example.org": metadata6,
	"mapped.example.org": "::ffff:" + metadata, "gateway.example.org": "10.209.0.1",
}

// answerNames is that name server: it gives the one address it has, whatever it is
// asked for.
func answerNames(conn net.PacketConn) {
	buf := make([]byte, 512)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		if answer := answerName(buf[:n]); answer != nil {
			_, _ = conn.WriteTo(answer, from) // who asks asks again
		}
	}
}

// answerName makes the answer to a message with one question, by RFC 1035.
func answerName(ask []byte) []byte {
	const header, typeAndClass = 12, 4
	var labels []string
	at := header
	for at < len(ask) && ask[at] > 0 && at+int(ask[at]) < len(ask) {
		labels = append(labels, string(ask[at+1:at+1+int(ask[at])]))
		at += 1 + int(ask[at])
	}
	at++
	if at+typeAndClass > len(ask) {
		return nil
	}
	const typeA, typeAAAA, classIN, ttl = 1, 28, 1, 60
	const answered, noSuchName, pointerToQuestion = 0x8180, 0x8183, 0xc00c
	be := binary.BigEndian
	addr, known := names[strings.ToLower(strings.Join(labels, "."))]
	flags, count := uint16(noSuchName), uint16(0)
	var record []byte
	if known {
		flags = answered
		kind, ip := uint16(typeA), netip.MustParseAddr(addr).AsSlice()
		if len(ip) > 4 {
			kind = typeAAAA
		}
		if be.Uint16(ask[at:]) == kind {
			count = 1
			record = be.AppendUint16(record, pointerToQuestion)
			record = be.AppendUint16(record, kind)
			record = be.AppendUint16(record, classIN)
			record = be.AppendUint32(record, ttl)
			record = be.AppendUint16(record, uint16(len(ip)))
			record = append(record, ip...)
		}
	}
	out := append([]byte{}, ask[:2]...)
	for _, word := range []uint16{flags, 1, count, 0, 0} {
		out = be.AppendUint16(out, word)
	}
	return append(append(out, ask[header:at+typeAndClass]...), record...)
}

// F112: names that lead to where no build may go, and IPv6.
func TestNamesThatLeadThere(t *testing.T) {
	plugWorld(t)
	l, err := net.Listen("tcp", ":8080")
	must(t, err)
	go sayHello(l)
	defer l.Close()
	if out, err := exec.Command("ip", "-6", "route", "add", metadata6, "via", world6).CombinedOutput(); err != nil {
		t.Fatalf("ip: %v: %s", err, out)
	}
	for _, addr := range []string{"[" + metadata6 + "]:80", metadata + ":80", "[::ffff:" + metadata + "]:80"} {
		if c, err := net.Dial("tcp", addr); err != nil {
			t.Errorf("%s is not there for the host either: %v", addr, err)
		} else {
			c.Close()
		}
	}
	program, err := os.ReadFile(buildProbe(t))
	must(t, err)
	var bridge string
	e := newEngine(t, func(c *container.Config) { bridge = c.Rules.Network.Bridge })
	w, _ := workspace(t, e, imported(t, e, containertest.Image{Shell: true, Layers: [][]containertest.File{{{Path: "/probe", Content: string(program), Mode: 0o755}}}}))
	first := script("true") // makes the bridge
	first.Network = true
	run(t, w, first)
	addrs := []string{
		"honest.example.org:80", "secrets.example.org:80", "secrets6.example.org:80", "mapped.example.org:80", "gateway.example.org:8080",
		"[" + metadata6 + "]:80", "[::ffff:" + metadata + "]:80", "[" + linkLocal(t, bridge) + "%eth0]:8080",
	}
	p := script("exec /probe dial " + strings.Join(addrs, " "))
	p.Network = true
	out, _ := run(t, w, p)
	for _, addr := range addrs {
		want := "nothing"
		if addr == "honest.example.org:80" {
			want = "hello " + ourselves
		}
		if !strings.Contains(out, addr+": "+want+"\n") {
			t.Errorf("%s should say %q:\n%s", addr, want, out)
		}
	}
	t.Attr("F112", fmt.Sprintf("%d names and addresses of IPv6 that lead to metadata, mapped or not, and to the host by its link-local address, all of which answer the host: a build hears nothing but from an honest name", len(addrs)-1))
}

// linkLocal is the address that the kernel gives each device for itself.
func linkLocal(t *testing.T, device string) string {
	t.Helper()
	i, err := net.InterfaceByName(device)
	must(t, err)
	addrs, err := i.Addrs()
	must(t, err)
	for _, addr := range addrs {
		if ip := addr.(*net.IPNet).IP; ip.To4() == nil && ip.IsLinkLocalUnicast() {
			return ip.String()
		}
	}
	t.Fatalf("%s has no link-local address: %v", device, addrs)
	return ""
}
