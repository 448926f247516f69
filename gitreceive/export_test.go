package gitreceive

import (
	"net/netip"

	gossh "golang.org/x/crypto/ssh"

	"github.com/daeploy/daeploy"
)

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

// VerifyCertificate is verify, from this host.
func VerifyCertificate(a *Authorities, cert *gossh.Certificate) (daeploy.Actor, error) {
	return a.verify(cert, netip.MustParseAddr("127.0.0.1"), "127.0.0.1:1")
}

// ParseRevocations tells what is wrong with a list.
func ParseRevocations(text []byte) error {
	_, err := parseRevocations(text)
	return err
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

// SetMost sets the cap of one repository, as a Server does.
func (r *Repositories) SetMost(bytes int64) { r.most.Store(bytes) }
