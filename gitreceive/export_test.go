package gitreceive

// What fuzzing reaches directly.
var (
	ReadPkt    = readPkt
	CheckRef   = checkRef
	UnsafeName = unsafeName
	Plain      = plain
)

// ParseExec is parseExec with its parts apart.
func ParseExec(line string) (git, app string, words []string, err error) {
	e, err := parseExec(line)
	return e.git, string(e.app), e.words, err
}

// ParseTree is parseTree, reduced to names and modes.
func ParseTree(text []byte) (names []string, modes []uint32, err error) {
	lines, err := parseTree(text)
	for _, l := range lines {
		names, modes = append(names, l.name), append(modes, l.mode)
	}
	return names, modes, err
}

// ParseModules is parseModules.
var ParseModules = parseModules

// ParseRemote is parseRemote with its parts apart.
func ParseRemote(raw string) (url, scheme, host, why string) {
	r, why := parseRemote(raw)
	return r.url, r.scheme, r.host, why
}

// Listed tells whether a URL is of a listed host.
func Listed(raw string, hosts ...string) bool {
	r, why := parseRemote(raw)
	return why == "" && r.listed(hosts)
}
