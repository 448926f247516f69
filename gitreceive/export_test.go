package gitreceive

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/idxfile"
	gossh "golang.org/x/crypto/ssh"

	"github.com/daeploy/daeploy"
)

// What fuzzing reaches directly.
var (
	ReadPkt    = readPkt
	CheckRef   = checkRef
	UnsafeName = unsafeName
	Plain      = plain
	Ciphers    = ciphers
	HasAES     = hasAES
)

// ParseExec is parseExec with its parts apart.
func ParseExec(line string) (git, app string, words []string, err error) {
	e, err := parseExec(line)
	return e.git, string(e.app), e.words, err
}

// ParseTree gives names and modes of a tree object that checkTree accepts.
func ParseTree(text []byte) (names []string, modes []uint32, err error) {
	t := treeText{text: text}
	if t.lines, err = checkTree(t, 1000); err != nil {
		return nil, nil, err
	}
	for t.lines > 0 {
		l, err := t.next()
		if err != nil {
			return nil, nil, err
		}
		names, modes = append(names, l.name), append(modes, l.mode)
	}
	return names, modes, nil
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

// Stopping tells whether those who are here have been told to leave.
func (s *Server) Stopping() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopping
}

// SetMost sets the cap of one repository, as a Server does.
func (r *Repositories) SetMost(bytes int64) { r.most.Store(bytes) }

// SetLimits sets the limits of a git that reads, as a Server does.
func (r *Repositories) SetLimits(l Limits) {
	l = l.orDefaults()
	r.reading.Store(&l)
}

// Overhear is what a tap lets through to git, and the commands it has seen.
func Overhear(client io.Reader, limits Limits) (passed []byte, commands []daeploy.RefUpdate, err error) {
	var git bytes.Buffer
	t := &tap{limits: limits.orDefaults()}
	err = t.copy(&git, client)
	return git.Bytes(), t.commands, err
}

// Hear is what a conversation reads from a hook before anything is decided.
func Hear(hook io.Reader, limits Limits) (commands []daeploy.RefUpdate, options []string, err error) {
	c := &conversation{t: &transfer{server: &Server{limits: limits.orDefaults()}}, git: hook, answers: io.Discard}
	features, err := c.greet()
	if err != nil {
		return nil, nil, err
	}
	return c.hear(features)
}

// Filter is a session before its command.
type Filter struct{ s *session }

// NewFilter makes one of a connection that has just begun.
func NewFilter() Filter { return Filter{&session{conn: &connection{began: time.Now()}}} }

// Request is the answer to one request.
func (f Filter) Request(kind string, payload []byte) (pass, ok bool) {
	return f.s.request(&gossh.Request{Type: kind, Payload: payload})
}

// Kept is what of the requests has an effect: git's protocol and the terminal.
func (f Filter) Kept() (protocol string, terminal *Terminal) { return f.s.protocol, f.s.terminal }

// Weigh weighs the entry at an offset of a pack without an index. Of a sound one it
// tells the size of the object, and how many deltas that takes.
func Weigh(file *os.File, length, offset int64) (size int64, links int, err error) {
	p := &pack{index: idxfile.NewMemoryIndex(), file: file, size: length}
	w, err := newScale([]*pack{p}).at(spot{p, offset})
	return w.size, w.links, err
}

// Find is where the pack of an index has objects, and what it says of others.
func Find(indexName string, ids ...daeploy.Revision) (offsets []int64, errs []error, err error) {
	p, err := openPack(indexName)
	if err != nil {
		return nil, nil, err
	}
	defer p.file.Close()
	for _, id := range ids {
		offset, err := p.find(plumbing.NewHash(string(id)))
		offsets, errs = append(offsets, offset), append(errs, err)
	}
	return offsets, errs, nil
}

// The offences of sources.
const (
	FailedLogin    = failedLogin
	NoAttempt      = noAttempt
	BrokenProtocol = brokenProtocol
)

// MaxPenalized is how many sources are remembered.
const MaxPenalized = maxPenalized

// Penalize adds a penalty to the source of an address, and tells for how long it is
// refused from now on if it was not before.
func Penalize(p *Penalties, address string, o offence) time.Duration {
	return p.add(source(net.TCPAddrFromAddrPort(netip.MustParseAddrPort(address))), o)
}

// Refuses tells whether the source of an address has to wait.
func Refuses(p *Penalties, address string) bool {
	return p.refuses(source(net.TCPAddrFromAddrPort(netip.MustParseAddrPort(address))))
}
