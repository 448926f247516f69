package network

// Rules are those of IPv4.
func (c Config) Rules() map[string][]string { return c.rules4() }

// Entry is entry for one jump of the filter table.
func Entry(from, to, listing string) string { return entry(jump{"filter", from, to}, listing) }
