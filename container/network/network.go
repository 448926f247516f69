// Package network gives builds their network: a bridge with address
// translation, and the walls around it (S135, stack.md section 10).
//
// The work is done by Hook, which the OCI runtime starts as its createRuntime
// hook, outside the sandbox of the daemon's unit: so the daemon needs neither the
// right nor the view. A container's devices go with its network namespace, even if the
// daemon is dead; its address is freed by who removes its task, or by the next hook.
package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/daeploy/daeploy"
)

// Config says what network builds get. Its JSON form is part of the hook's
// command line: names stay, since the hook that ends a container may be of a
// later version than the one that began it.
type Config struct {
	Bridge     string   `json:"bridge"`  // its name, also the first part of our firewall chains' names
	Subnet     string   `json:"subnet"`  // IPv4, "10.209.0.0/16"
	PluginDirs []string `json:"plugins"` // of the CNI plugins bridge and host-local
	DataDir    string   `json:"data"`    // which addresses are given out

	// AllowPrivate lets builds reach private ranges, where mirrors, proxies and
	// resolvers live.
	AllowPrivate bool `json:"private"`

	// Nameservers are those of resolv.conf; they can be reached on port 53
	// wherever they are.
	Nameservers []netip.Addr `json:"dns"`
}

var bridgeName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,14}$`)

// Check tells whether the values can be used in rules and file names.
func (c Config) Check() error {
	if !bridgeName.MatchString(c.Bridge) {
		return fmt.Errorf("network bridge %q: want 1 to 15 lower-case letters, digits and hyphens", c.Bridge)
	}
	subnet, err := netip.ParsePrefix(c.Subnet)
	if err != nil || !subnet.Addr().Is4() || subnet.Bits() > 29 || subnet.Masked() != subnet {
		return fmt.Errorf("network subnet %q: want an IPv4 network of at least 8 addresses, as in 10.209.0.0/16", c.Subnet)
	}
	if !filepath.IsAbs(c.DataDir) {
		return fmt.Errorf("network data directory %q is not absolute", c.DataDir)
	}
	return nil
}

// Args are the words that follow the program's own name and hook command.
func (c Config) Args(verb string) ([]string, error) {
	text, err := json.Marshal(c)
	return []string{verb, string(text)}, err
}

// Address is the address that a container has been given, "" if none.
func (c Config) Address(container string) (string, error) {
	dir := filepath.Join(c.DataDir, c.Bridge)
	names, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	for _, entry := range names {
		if _, err := netip.ParseAddr(entry.Name()); err != nil {
			continue
		}
		content, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		if owner, _, _ := strings.Cut(string(content), "\n"); strings.TrimSpace(owner) == container {
			return entry.Name(), nil
		}
	}
	return "", nil
}

// Resolver is what a build's resolv.conf says.
type Resolver struct {
	Nameservers []netip.Addr
	lines       []string // search and options, as the host has them
}

// ReadResolver takes the host's resolver settings from the first file that
// names a server a build can reach: a loopback address is the host's own, and
// builds have no IPv6.
func ReadResolver(files ...string) (Resolver, error) {
	for _, name := range files {
		text, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return Resolver{}, err
		}
		if r := parseResolver(string(text)); len(r.Nameservers) > 0 {
			return r, nil
		}
	}
	return Resolver{}, &daeploy.Error{
		Kind: daeploy.Config, Code: "no_nameserver",
		Message: "builds have no name server: none is an IPv4 address beyond this host's loopback",
		Hint:    "name one in the configuration, or give builds no network", Err: errors.New("none in " + strings.Join(files, ", ")),
	}
}

func parseResolver(text string) Resolver {
	var r Resolver
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		switch words[0] {
		case "nameserver":
			addr, err := netip.ParseAddr(words[1])
			if err == nil && addr.Is4() && !addr.IsLoopback() && !addr.IsUnspecified() {
				r.Nameservers = append(r.Nameservers, addr)
			}
		case "search", "options":
			r.lines = append(r.lines, strings.Join(words, " "))
		}
	}
	return r
}

// String is the text of resolv.conf.
func (r Resolver) String() string {
	var b strings.Builder
	for _, addr := range r.Nameservers {
		fmt.Fprintln(&b, "nameserver", addr)
	}
	for _, line := range r.lines {
		fmt.Fprintln(&b, line)
	}
	return b.String()
}
