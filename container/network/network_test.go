package network_test

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container/network"
)

func config(t *testing.T) network.Config {
	t.Helper()
	return network.Config{Bridge: "daeploy0", Subnet: "10.209.0.0/16", DataDir: t.TempDir()}
}

func TestConfigCheck(t *testing.T) {
	if err := config(t).Check(); err != nil {
		t.Errorf("a sound configuration: %v", err)
	}
	for name, change := range map[string]func(*network.Config){
		"bridge is an option":      func(c *network.Config) { c.Bridge = "-j" },
		"bridge is a path":         func(c *network.Config) { c.Bridge = "../x" },
		"bridge has a blank":       func(c *network.Config) { c.Bridge = "a b" },
		"bridge has a line feed":   func(c *network.Config) { c.Bridge = "a\n" },
		"bridge is too long":       func(c *network.Config) { c.Bridge = "abcdefghijklmnop" },
		"subnet is missing":        func(c *network.Config) { c.Subnet = "" },
		"subnet has host bits":     func(c *network.Config) { c.Subnet = "10.209.0.1/16" },
		"subnet is IPv6":           func(c *network.Config) { c.Subnet = "fd00::/64" },
		"subnet has no addresses":  func(c *network.Config) { c.Subnet = "10.0.0.0/30" },
		"data directory is nearby": func(c *network.Config) { c.DataDir = "net" },
	} {
		c := config(t)
		change(&c)
		if err := c.Check(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestReadResolver(t *testing.T) {
	tests := []struct{ name, first, second, want string }{
		{"plain", "# x\nnameserver 192.0.2.1\nsearch a.example b.example\noptions ndots:2\n", "", "nameserver 192.0.2.1\nsearch a.example b.example\noptions ndots:2\n"},
		{"stub of systemd-resolved", "nameserver 127.0.0.53\noptions edns0\n", "nameserver 10.0.0.2\n", "nameserver 10.0.0.2\n"},
		{"loopback among others", "nameserver 127.0.0.1\nnameserver 192.0.2.1\n", "", "nameserver 192.0.2.1\n"},
		{"metadata address", "nameserver 169.254.169.254\n", "", "nameserver 169.254.169.254\n"},
		{"no address builds have", "nameserver 2001:db8::1\nnameserver ::1\nnameserver x\nnameserver\n", "nameserver 0.0.0.0\n", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			files := []string{filepath.Join(dir, "missing"), filepath.Join(dir, "first"), filepath.Join(dir, "second")}
			for i, text := range []string{tt.first, tt.second} {
				if err := os.WriteFile(files[i+1], []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			r, err := network.ReadResolver(files...)
			if tt.want == "" {
				if daeploy.KindOf(err) != daeploy.Config {
					t.Errorf("ReadResolver: %v, want an error of kind Config", err)
				}
				return
			}
			if diff := cmp.Diff(tt.want, r.String()); err != nil || diff != "" {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
}

func TestAddress(t *testing.T) {
	c := config(t)
	if addr, err := c.Address("blog-1"); addr != "" || err != nil {
		t.Errorf("before any container: %q, %v", addr, err)
	}
	dir := filepath.Join(c.DataDir, c.Bridge)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"10.209.0.2": "blog-11\r\neth0", "10.209.0.3": "blog-1\r\neth0", "last_reserved_ip.0": "blog-1", "lock": "",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if addr, err := c.Address("blog-1"); addr != "10.209.0.3" || err != nil {
		t.Errorf("Address = %q, %v; want 10.209.0.3", addr, err)
	}
}

// What a hook is given by a stranger must not reach a program or a path.
func TestHookRefusals(t *testing.T) {
	c := config(t)
	args, err := c.Args(network.Add)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		args  []string
		stdin string
	}{
		"no arguments":      {nil, `{}`},
		"no configuration":  {[]string{"add", "x"}, `{}`},
		"bad configuration": {[]string{"add", `{"bridge":"-x"}`}, `{}`},
		"no state":          {args, ``},
		"id is a path":      {args, `{"id":"../../etc/passwd","pid":1}`},
		"no process":        {args, `{"id":"blog-1"}`},
		"unknown verb":      {[]string{"flush", args[1]}, `{"id":"blog-1","pid":1}`},
	} {
		if err := network.Hook(context.Background(), strings.NewReader(tt.stdin), tt.args); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// The order of the rules is their meaning; this is all of them.
func TestRules(t *testing.T) {
	c := config(t)
	c.Nameservers = []netip.Addr{netip.MustParseAddr("169.254.169.254")}
	got := c.Rules()
	want := map[string][]string{
		"daeploy0-forward": {
			"-o daeploy0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "-o daeploy0 -j DROP", "! -i daeploy0 -j RETURN",
			"! -s 10.209.0.0/16 -j DROP", "-m conntrack --ctstate NEW -m connlimit --connlimit-above 4096 --connlimit-mask 32 --connlimit-saddr -j DROP",
			"-d 169.254.169.254/32 -p udp -m udp --dport 53 -j ACCEPT", "-d 169.254.169.254/32 -p tcp -m tcp --dport 53 -j ACCEPT",
			"-m conntrack --ctstate DNAT -j DROP", "-d 0.0.0.0/8 -j DROP", "-d 127.0.0.0/8 -j DROP", "-d 169.254.0.0/16 -j DROP", "-d 224.0.0.0/4 -j DROP", "-d 240.0.0.0/4 -j DROP", "-d 168.63.129.16/32 -j DROP", "-d 100.100.100.200/32 -j DROP", "-d 192.0.0.0/24 -j DROP",
			"-d 10.0.0.0/8 -j DROP", "-d 100.64.0.0/10 -j DROP", "-d 172.16.0.0/12 -j DROP", "-d 192.168.0.0/16 -j DROP", "-j ACCEPT",
		},
		"daeploy0-input": {
			"! -i daeploy0 -j RETURN", "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "-m conntrack --ctstate NEW -m connlimit --connlimit-above 4096 --connlimit-mask 32 --connlimit-saddr -j DROP",
			"-d 169.254.169.254/32 -p udp -m udp --dport 53 -j ACCEPT", "-d 169.254.169.254/32 -p tcp -m tcp --dport 53 -j ACCEPT", "-j DROP",
		},
		"daeploy0-nat": {"-s 10.209.0.0/16 ! -o daeploy0 -j MASQUERADE"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestMissing: F113. What stands is left alone; whatever others have taken out, put
// before our jumps or changed brings its table back whole, and no other.
func TestMissing(t *testing.T) {
	c := config(t)
	first := c.Missing("")
	filter, nat, _ := strings.Cut(first, "*nat\n")
	// iptables-save prints what it was told, with counters, its own chains and those of others.
	saved := "# by iptables-save\n*mangle\n:FORWARD ACCEPT [0:0]\n-A FORWARD -j other\nCOMMIT\n" +
		strings.NewReplacer("*filter\n", "*filter\n:INPUT ACCEPT [1:2]\n:FORWARD DROP [3:4]\n:other - [0:0]\n", "-I FORWARD 1 ", "-A FORWARD ",
			"-I INPUT 1 ", "-A INPUT ", "-I POSTROUTING 1 ", "-A POSTROUTING ", "COMMIT\n", "-A FORWARD -j other\nCOMMIT\n").Replace(first)
	for name, tt := range map[string]struct{ old, new, table, entries string }{
		"nothing":                 {"", "", "", ""},
		"a rule is gone":          {"-A daeploy0-input -j DROP\n", "", filter, ""},
		"a rule is another":       {"-d 169.254.0.0/16 -j DROP", "-d 169.254.0.0/17 -j DROP", filter, ""},
		"a rule too many":         {"-A daeploy0-nat ", "-A daeploy0-nat -j RETURN\n-A daeploy0-nat ", "*nat\n" + nat, ""},
		"the jump is gone":        {"-A POSTROUTING -j daeploy0-nat\n", "", "*nat\n" + nat, "-I POSTROUTING 1 -j daeploy0-nat\n"},
		"another came first":      {"-A FORWARD -j daeploy0-forward\n", "-A FORWARD -j other\n-A FORWARD -j daeploy0-forward\n", filter, "-D FORWARD -j daeploy0-forward\n-I FORWARD 1 -j daeploy0-forward\n"},
		"the jump has conditions": {"-A INPUT -j daeploy0-input\n", "-A INPUT -s 192.0.2.1/32 -j daeploy0-input\n", filter, "-I INPUT 1 -j daeploy0-input\n"},
		"a longer name":           {"-A INPUT -j daeploy0-input\n", "-A INPUT -j daeploy0-input-2\n", filter, "-I INPUT 1 -j daeploy0-input\n"},
		"ours in another table":   {"*nat\n", "*raw\n", "*nat\n" + nat, "-I POSTROUTING 1 -j daeploy0-nat\n"},
	} {
		listing, want := strings.Replace(saved, tt.old, tt.new, 1), ""
		if tt.old != "" && listing == saved {
			t.Fatalf("%s: %q is not in\n%s", name, tt.old, saved)
		}
		if tt.table != "" {
			chains, _, _ := strings.Cut(tt.table, "-I ")
			want = chains + tt.entries + "COMMIT\n"
		}
		if diff := cmp.Diff(want, c.Missing(listing)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if got := c.Missing6(""); !strings.HasPrefix(got, "*filter\n") || strings.Contains(got, "*nat") {
		t.Errorf("of IPv6: %q", got)
	}
}

// TestIncompatible: F113. The iptables of nft shows nothing of a table that has rules of
// nft's own, and ends well: what it does not show must not be taken for missing.
func TestIncompatible(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	told := filepath.Join(dir, "told")
	for name, tt := range map[string]struct {
		listing  string
		restores bool
	}{
		"an empty host": {"*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n", true},
		"nft's filter":  {"# Table `filter' is incompatible, use 'nft' tool.\n*nat\nCOMMIT\n", false},
		"nft's nat":     {"*filter\nCOMMIT\n# Table `nat' is incompatible, use 'nft' tool.\n", false},
		"chains of nft": {"# Table `filter' contains incompatible base-chains, use 'nft' tool to list them.\n*filter\nCOMMIT\n", true},
		"nft's other":   {"# Table `mangle' is incompatible, use 'nft' tool.\n*filter\nCOMMIT\n", true},
	} {
		for program, text := range map[string]string{
			"tables-save":    "cat <<'END'\n" + tt.listing + "END",
			"tables-restore": "cat >" + told,
		} {
			if err := os.WriteFile(filepath.Join(dir, program), []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.RemoveAll(told); err != nil {
			t.Fatal(err)
		}
		err := config(t).Install(t.Context(), "tables")
		_, none := os.Stat(told)
		if restored := none == nil; restored != tt.restores || (err == nil) != tt.restores {
			t.Errorf("%s: rules were written: %t, %v; want %t", name, restored, err, tt.restores)
		}
	}
}

func FuzzReadResolver(f *testing.F) {
	for _, seed := range []string{"nameserver 192.0.2.1\n", "search a\x00b\n", "nameserver 127.1\n", "options\nnameserver ::ffff:1.2.3.4"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		file := filepath.Join(t.TempDir(), "resolv.conf")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := network.ReadResolver(file)
		if err != nil {
			return
		}
		for _, addr := range r.Nameservers {
			if !addr.Is4() || addr.IsLoopback() {
				t.Errorf("name server %v: builds cannot reach it", addr)
			}
		}
	})
}

// TestForbids: what the daemon does not reach for a build either (F112).
func TestForbids(t *testing.T) {
	open := network.Config{AllowPrivate: true}
	for _, test := range []struct {
		addr         string
		open, closed bool
	}{
		{"169.254.169.254", true, true},
		{"::ffff:169.254.169.254", true, true},
		{"168.63.129.16", true, true},
		{"100.100.100.200", true, true},
		{"127.0.0.1", true, true},
		{"::1", true, true},
		{"fe80::1", true, true},
		{"fd00:ec2::254", true, true},
		{"224.0.0.1", true, true},
		{"0.0.0.0", true, true},
		{"10.1.2.3", false, true},
		{"192.168.1.1", false, true},
		{"fd12::1", false, true},
		{"198.51.100.7", false, false},
		{"2001:db8::1", false, false},
	} {
		addr := netip.MustParseAddr(test.addr)
		if got := open.Forbids(addr); got != test.open {
			t.Errorf("%s with private ranges allowed: forbidden %v, want %v", addr, got, test.open)
		}
		if got := (network.Config{}).Forbids(addr); got != test.closed {
			t.Errorf("%s without private ranges: forbidden %v, want %v", addr, got, test.closed)
		}
	}
	t.Attr("F112", "15 addresses with private ranges open and closed: those of metadata, loopback, link-local, multicast are never reached")
}
