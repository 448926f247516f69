package network

import "context"

// Rules are those of IPv4.
func (c Config) Rules() map[string][]string { return c.rules4() }

// Missing is what iptables-restore is told when iptables-save prints listing.
func (c Config) Missing(listing string) string {
	return missing(parseTables(listing), c.tables4(), c.rules4())
}

// Missing6 is the same of IPv6.
func (c Config) Missing6(listing string) string {
	return missing(parseTables(listing), c.tables6(), c.rules6())
}

// Install is what is done by a program that is called as iptables is.
func (c Config) Install(ctx context.Context, program string) error {
	return install(ctx, program, c.tables4(), c.rules4())
}
