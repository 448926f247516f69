package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/daeploy/daeploy/gitreceive"
)

// penaltyConfig says for how long a source is refused for what came from it.
type penaltyConfig struct {
	FailedLogin    duration `toml:"failed_login"`
	NoAttempt      duration `toml:"no_attempt"`
	BrokenProtocol duration `toml:"broken_protocol"`
	Min            duration `toml:"min"`
	Max            duration `toml:"max"`
	Exempt         []string `toml:"exempt"` // addresses and networks
}

func penaltiesOf(r gitreceive.PenaltyRules) penaltyConfig {
	c := penaltyConfig{
		FailedLogin: duration(r.FailedLogin), NoAttempt: duration(r.NoAttempt), BrokenProtocol: duration(r.Broken),
		Min: duration(r.Min), Max: duration(r.Max),
	}
	for _, network := range r.Exempt {
		c.Exempt = append(c.Exempt, network.String())
	}
	return c
}

// rules are those of the configuration, or which key of it cannot work.
func (p penaltyConfig) rules() (gitreceive.PenaltyRules, error) {
	r := gitreceive.PenaltyRules{
		FailedLogin: time.Duration(p.FailedLogin), NoAttempt: time.Duration(p.NoAttempt), Broken: time.Duration(p.BrokenProtocol),
		Min: time.Duration(p.Min), Max: time.Duration(p.Max),
	}
	for key, d := range map[string]duration{
		"failed_login": p.FailedLogin, "no_attempt": p.NoAttempt, "broken_protocol": p.BrokenProtocol, "min": p.Min, "max": p.Max,
	} {
		if d < 0 {
			return r, badValue("ssh.penalties."+key, "must not be below zero")
		}
	}
	if r.Max < r.Min {
		return r, badValue("ssh.penalties.max", "must be at least ssh.penalties.min")
	}
	for _, word := range p.Exempt {
		network, err := parseNetwork(word)
		if err != nil {
			return r, badValue("ssh.penalties.exempt", fmt.Sprintf("has %q, which is no address or network such as 192.0.2.7 or 10.0.0.0/8", word))
		}
		r.Exempt = append(r.Exempt, network)
	}
	return r, nil
}

// parseNetwork takes an address as the network of it alone.
func parseNetwork(word string) (netip.Prefix, error) {
	if !strings.Contains(word, "/") {
		address, err := netip.ParseAddr(word)
		address = address.Unmap()
		return netip.PrefixFrom(address, address.BitLen()), err
	}
	network, err := netip.ParsePrefix(word)
	if err == nil && network.Addr().Is4In6() {
		err = errors.New("an IPv4 network in the form of IPv6 contains no address")
	}
	return network, err
}
