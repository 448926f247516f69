package gitreceive

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/daeploy/daeploy"
)

// Authorities are the CAs whose user certificates log in, and what of them was
// revoked. The files are read again when they change: what cannot be read then
// lets nobody in by a certificate. It is safe for several goroutines.
type Authorities struct {
	log          *slog.Logger
	keys, revoke watchedFile

	mu      sync.Mutex
	trusted map[daeploy.KeyID]bool
	revoked revocations
	fault   error // why no certificate is accepted
}

// OpenAuthorities reads the public keys of CAs, one a line, and what is revoked:
// a file each, or "" for nothing. What is wrong with them is an error of kind Config.
func OpenAuthorities(keys, revoked string, log *slog.Logger) (*Authorities, error) {
	a := &Authorities{log: log, keys: watchedFile{path: keys}, revoke: watchedFile{path: revoked}}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.read(); err != nil {
		return nil, err
	}
	return a, nil
}

// Adopt puts other CAs in place of those there are, and what of them is revoked. The
// other Authorities are not to be used any more.
func (a *Authorities) Adopt(other *Authorities) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.keys, a.revoke, a.trusted, a.revoked, a.fault = other.keys, other.revoke, other.trusted, other.revoked, other.fault
}

// refresh reads what has changed. a.mu is held.
func (a *Authorities) refresh() {
	if !a.keys.changed() && !a.revoke.changed() {
		return
	}
	if err := a.read(); err != nil {
		a.log.Error("no certificate is accepted", "err", err)
	}
}

func (a *Authorities) read() error {
	a.fault = nil
	text, err := a.keys.read()
	a.trusted = nil
	if err == nil && a.keys.path != "" {
		a.trusted, err = parseAuthorities(text)
	}
	if err != nil {
		a.fault = authorityFault("ssh.trusted_user_ca_keys", a.keys.path, err)
	}
	if text, err = a.revoke.read(); err == nil {
		a.revoked, err = parseRevocations(text)
	}
	if err != nil && a.fault == nil {
		a.fault = authorityFault("ssh.revoked_keys", a.revoke.path, err)
	}
	return a.fault
}

func authorityFault(key, path string, err error) error {
	return &daeploy.Error{
		Kind: daeploy.Config, Code: "config_invalid", Message: fmt.Sprintf("%s %s: %v", key, path, err),
		Hint: "correct the file, or leave the key out",
	}
}

// verify makes the actor of a certificate that a client shows, from an address.
// Whether the client has the certified key is not asked here. The error says what
// is wrong, to the operator.
func (a *Authorities) verify(cert *gossh.Certificate, from netip.Addr, remote string) (daeploy.Actor, error) {
	if a == nil || cert.CertType != gossh.UserCert || cert.Key == nil || cert.SignatureKey == nil || cert.Signature == nil {
		return daeploy.Actor{}, errNotCertified
	}
	// A stranger's CA costs no signature.
	facts := factsOf(cert)
	if !a.trusts(facts.CA) {
		return daeploy.Actor{}, errNotCertified
	}
	// Before the signature is proven, nothing of it is repeated: anybody can write
	// a certificate that names a CA.
	if !signed(cert) {
		return daeploy.Actor{}, errForged
	}
	if err := a.check(cert, from); err != nil {
		return daeploy.Actor{}, fmt.Errorf("certificate %q, %s: %w", plain(cert.KeyId, 64), facts, err)
	}
	actor, ok := facts.Holder(keyID(cert.Key), remote)
	if !ok {
		return daeploy.Actor{}, fmt.Errorf("certificate %q, %s: no principal is a right here", plain(cert.KeyId, 64), facts)
	}
	return actor, nil
}

var (
	errNotCertified = errors.New("no user certificate of a trusted CA")
	errForged       = errors.New("a certificate names a trusted CA, but its signature does not verify")
)

// signed tells whether the CA that a certificate names has signed it. The
// library asks this last, and not alone.
func signed(cert *gossh.Certificate) bool {
	body := *cert
	body.Signature = nil
	text := body.Marshal()
	text = text[:len(text)-4] // the length of no signature
	return cert.SignatureKey.Verify(text, cert.Signature) == nil
}

func factsOf(cert *gossh.Certificate) *daeploy.Certificate {
	c := &daeploy.Certificate{
		Serial: cert.Serial, ID: plain(cert.KeyId, 255), CA: keyID(cert.SignatureKey), Principals: cert.ValidPrincipals,
	}
	if cert.ValidBefore < 1<<62 {
		c.Expires = time.Unix(int64(cert.ValidBefore), 0).UTC()
	}
	return c
}

// maxPrincipals is OpenSSH's.
const maxPrincipals = 256

// check is all that a certificate of a trusted CA is held to.
func (a *Authorities) check(cert *gossh.Certificate, from netip.Addr) error {
	switch {
	case !accepted(cert.Key) || !accepted(cert.SignatureKey):
		return errors.New("a key of it is of a kind that is not accepted")
	case !slices.Contains(signatures(), cert.Signature.Format):
		return fmt.Errorf("its signature is a %s", plain(cert.Signature.Format, 40))
	case len(cert.ValidPrincipals) == 0:
		// To OpenSSH it would be everybody's.
		return errors.New("it has no principals")
	case len(cert.ValidPrincipals) > maxPrincipals:
		return fmt.Errorf("it has more than %d principals", maxPrincipals)
	}
	checker := gossh.CertChecker{
		SupportedCriticalOptions: []string{sourceAddress},
		IsUserAuthority:          func(key gossh.PublicKey) bool { return a.trusts(keyID(key)) },
		IsHostAuthority:          func(gossh.PublicKey, string) bool { return false },
		IsRevoked: func(c *gossh.Certificate) bool {
			return a.revokes(keyID(c.Key), &daeploy.Certificate{Serial: c.Serial, ID: c.KeyId, CA: keyID(c.SignatureKey)})
		},
	}
	// Any of its own principals will do: what they are good for is asked later.
	if err := checker.CheckCert(cert.ValidPrincipals[0], cert); err != nil {
		return err
	}
	if list, limited := cert.CriticalOptions[sourceAddress]; limited {
		return checkSource(list, from)
	}
	return nil
}

// sourceAddress is the one critical option that we know. The SSH library holds
// nobody to it here: it sees no permissions of a certificate.
const sourceAddress = "source-address"

// checkSource wants from in a list of addresses and networks.
func checkSource(list string, from netip.Addr) error {
	from = from.Unmap().WithZone("")
	found := false
	for word := range strings.SplitSeq(list, ",") {
		network, err := netip.ParsePrefix(word)
		if err != nil {
			address, err := netip.ParseAddr(word)
			if err != nil {
				return fmt.Errorf("its option source-address has %q", plain(word, 64))
			}
			network = netip.PrefixFrom(address, address.BitLen())
		}
		found = found || network.Contains(from)
	}
	if !found {
		return fmt.Errorf("it may not be used from %s", from)
	}
	return nil
}

// Current is the actor with the rights of now, by the facts of a certificate
// that was proven before; false if it does not hold any more.
func (a *Authorities) Current(was daeploy.Actor) (daeploy.Actor, bool) {
	c := was.Certificate
	if a == nil || c == nil || !a.trusts(c.CA) || a.revokes(was.Key, c) || !c.Expires.IsZero() && !time.Now().Before(c.Expires) {
		return daeploy.Actor{}, false
	}
	return c.Holder(was.Key, was.Remote)
}

func (a *Authorities) trusts(ca daeploy.KeyID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.refresh()
	return a.fault == nil && a.trusted[ca]
}

func (a *Authorities) revokes(key daeploy.KeyID, c *daeploy.Certificate) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.refresh()
	return a.fault != nil || a.revoked.has(key, c)
}
