package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
)

// never are destinations that no build reaches: this network, loopback,
// link-local with the metadata services of clouds, multicast, and what is
// reserved or broadcast (F112).
var never = []string{
	"0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4",
	"168.63.129.16/32", "100.100.100.200/32", "192.0.0.0/24", // clouds that keep theirs elsewhere
}

// never6 are the same of IPv6, for connections the daemon makes for a build.
var never6 = []string{"::/128", "::1/128", "fe80::/10", "ff00::/8", "fd00:ec2::254/128", "fd20:ce::254/128"}

// private are the ranges that AllowPrivate is about.
var private = []string{"10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16"}

// maxTracked is how many connections of a container the kernel tracks at once. It
// remembers those that ended too, for up to two minutes, and tracks only so many for
// all of a host: in a table that is full there is no place for who calls the host.
const maxTracked = 4096

// jump leads from a chain of the kernel to one of ours.
type jump struct{ from, to string }

// table is one of the kernel's, with our jumps.
type table struct {
	name  string
	jumps []jump
}

func (c Config) tables4() []table {
	return append(c.tables6(), table{"nat", []jump{{"POSTROUTING", c.Bridge + "-nat"}}})
}

func (c Config) tables6() []table {
	return []table{{"filter", []jump{{"FORWARD", c.Bridge + "-forward"}, {"INPUT", c.Bridge + "-input"}}}}
}

// rules4 gives the whole content of our chains, by chain. The order is the
// meaning: name servers first, then what is dropped, then the rest of the world.
// They are written as iptables-save prints them, so that they are known again.
func (c Config) rules4() map[string][]string {
	tooMany := fmt.Sprintf("-m conntrack --ctstate NEW -m connlimit --connlimit-above %d --connlimit-mask 32 --connlimit-saddr -j DROP", maxTracked)
	forward := []string{
		// Towards builds go answers only; this is also what keeps builds apart.
		"-o " + c.Bridge + " -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
		"-o " + c.Bridge + " -j DROP",
		"! -i " + c.Bridge + " -j RETURN",
		"! -s " + c.Subnet + " -j DROP",
		tooMany,
	}
	input := []string{
		"! -i " + c.Bridge + " -j RETURN",
		"-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
		tooMany,
	}
	for _, addr := range c.Nameservers {
		for _, proto := range []string{"udp", "tcp"} {
			rule := fmt.Sprintf("-d %s/32 -p %s -m %[2]s --dport 53 -j ACCEPT", addr, proto)
			forward, input = append(forward, rule), append(input, rule)
		}
	}
	// What the host forwards to somebody else's container is the host's.
	forward = append(forward, "-m conntrack --ctstate DNAT -j DROP")
	dropped := never
	if !c.AllowPrivate {
		dropped = append(slices.Clip(dropped), private...)
	}
	for _, network := range dropped {
		forward = append(forward, "-d "+network+" -j DROP")
	}
	return map[string][]string{
		c.Bridge + "-forward": append(forward, "-j ACCEPT"),
		c.Bridge + "-input":   append(input, "-j DROP"),
		c.Bridge + "-nat":     {"-s " + c.Subnet + " ! -o " + c.Bridge + " -j MASQUERADE"},
	}
}

// Forbids tells whether builds, and who acts for them, must not reach addr.
func (c Config) Forbids(addr netip.Addr) bool {
	addr = addr.Unmap()
	lists := [][]string{never, never6}
	if !c.AllowPrivate {
		lists = append(lists, private, []string{"fc00::/7"})
	}
	for _, prefix := range slices.Concat(lists...) {
		if netip.MustParsePrefix(prefix).Contains(addr) {
			return true
		}
	}
	return false
}

// rules6 drop everything: builds have no IPv6 but their link-local addresses.
func (c Config) rules6() map[string][]string {
	return map[string][]string{
		c.Bridge + "-forward": {"-i " + c.Bridge + " -j DROP", "-o " + c.Bridge + " -j DROP"},
		c.Bridge + "-input":   {"-i " + c.Bridge + " -j DROP"},
	}
}

// install makes our chains say exactly this, in one step per table that leaves
// no moment without them. It can be repeated, and mends what others flushed.
func (c Config) install(ctx context.Context) error {
	var both errgroup.Group
	both.Go(func() error { return install(ctx, "iptables", c.tables4(), c.rules4()) })
	if _, err := os.Stat("/proc/net/if_inet6"); !errors.Is(err, fs.ErrNotExist) { // this kernel speaks IPv6
		both.Go(func() error { return install(ctx, "ip6tables", c.tables6(), c.rules6()) })
	}
	return both.Wait()
}

// install writes nothing where everything stands: the kernel takes its time to
// take a table over, and there is a container to be started after that.
func install(ctx context.Context, program string, tables []table, rules map[string][]string) error {
	listing, err := command(ctx, "", program+"-save")
	if err != nil {
		return err
	}
	if m := incompatible.FindString(listing); m != "" {
		return fmt.Errorf("%s-save: %s", program, m) // rules of nft that it cannot tell: nor can we
	}
	script := missing(parseTables(listing), tables, rules)
	if script == "" {
		return nil
	}
	_, err = command(ctx, script, program+"-restore", "-w", "--noflush")
	return err
}

// incompatible is what the iptables of nft prints, and ends well, in place of a table
// of ours with rules that it cannot show.
var incompatible = regexp.MustCompile("(?m)^# Table `(filter|nat)' is incompatible.*$")

// chain names one of a table.
type chain struct{ table, name string }

// parseTables gives the rules of each chain that has any, in order and without
// "-A CHAIN ", of what iptables-save prints.
func parseTables(listing string) map[chain][]string {
	chains, in := map[chain][]string{}, ""
	for line := range strings.Lines(listing) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "*"); ok {
			in = name
		}
		if rest, ok := strings.CutPrefix(line, "-A "); ok {
			name, rule, _ := strings.Cut(rest, " ")
			of := chain{in, name}
			chains[of] = append(chains[of], rule)
		}
	}
	return chains
}

// missing is what iptables-restore is to be told, "" if all is as it should be. A
// table of which anything is missing is told whole.
func missing(now map[chain][]string, tables []table, rules map[string][]string) string {
	var script strings.Builder
	for _, t := range tables {
		entries, complete := "", true
		for _, j := range t.jumps {
			entries += entry(j, now[chain{t.name, j.from}])
			complete = complete && slices.Equal(now[chain{t.name, j.to}], rules[j.to])
		}
		if complete && entries == "" {
			continue
		}
		fmt.Fprintf(&script, "*%s\n", t.name)
		for _, j := range t.jumps {
			// With --noflush this line alone empties the chain.
			fmt.Fprintf(&script, ":%s - [0:0]\n", j.to)
			for _, rule := range rules[j.to] {
				fmt.Fprintf(&script, "-A %s %s\n", j.to, rule)
			}
		}
		script.WriteString(entries + "COMMIT\n")
	}
	return script.String()
}

// entry gives the lines that make our jump the first rule of its chain, whose
// rules now are given; none if it is.
func entry(j jump, now []string) string {
	rule := "-j " + j.to
	if len(now) > 0 && now[0] == rule {
		return ""
	}
	var lines strings.Builder
	for _, other := range now {
		if other == rule {
			fmt.Fprintf(&lines, "-D %s %s\n", j.from, rule)
		}
	}
	fmt.Fprintf(&lines, "-I %s 1 %s\n", j.from, rule)
	return lines.String()
}

func command(ctx context.Context, stdin, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return "", fmt.Errorf("%s: %s (%v)", name, strings.TrimSpace(string(exit.Stderr)), err)
	}
	return string(out), err
}
