package gitreceive_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/gitreceive"
)

// ca is a certificate authority that the server trusts, and the two files.
type ca struct {
	t             testing.TB
	signer        gossh.Signer
	keys, revoked string
}

func newSigner(t testing.TB) gossh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := gossh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newCA(t *testing.T) *ca {
	t.Helper()
	c := &ca{t: t, signer: newSigner(t), keys: filepath.Join(t.TempDir(), "ca.pub"), revoked: filepath.Join(t.TempDir(), "revoked")}
	c.write(c.keys, "# ours\n"+string(gossh.MarshalAuthorizedKey(c.signer.PublicKey())))
	c.write(c.revoked, "")
	return c
}

// write puts a file in the place of another, as an editor does.
func (c *ca) write(path, text string) {
	c.t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		c.t.Fatal(err)
	}
}

func (c *ca) option(config *gitreceive.Config) {
	c.t.Helper()
	var err error
	if config.Authorities, err = gitreceive.OpenAuthorities(c.keys, c.revoked, config.Log); err != nil {
		c.t.Fatal(err)
	}
}

// certificate is a good one for the app blog, changed by change, and signed.
func (c *ca) certificate(key gossh.PublicKey, change func(*gossh.Certificate)) *gossh.Certificate {
	c.t.Helper()
	cert := &gossh.Certificate{
		Key: key, Serial: 7, CertType: gossh.UserCert, KeyId: "anna@laptop", ValidPrincipals: []string{"blog"},
		ValidAfter: uint64(time.Now().Add(-time.Minute).Unix()), ValidBefore: uint64(time.Now().Add(time.Hour).Unix()),
		Permissions: gossh.Permissions{CriticalOptions: map[string]string{}, Extensions: map[string]string{"permit-pty": ""}},
	}
	if change != nil {
		change(cert)
	}
	if cert.Signature == nil {
		if err := cert.SignCert(rand.Reader, c.signer); err != nil {
			c.t.Fatal(err)
		}
	}
	return cert
}

// certified is a person with a certificate and no key on the server.
func (c *ca) certified(h *host, change func(*gossh.Certificate)) *person {
	c.t.Helper()
	p := h.person("somebody", nil)
	cert := c.certificate(p.signer.PublicKey(), change)
	if err := os.WriteFile(filepath.Join(p.home, "id-cert.pub"), gossh.MarshalAuthorizedKey(cert), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return p
}

// A certificate of a trusted CA lets in, with the rights that its principals are.
func TestCertificateRights(t *testing.T) {
	authority := newCA(t)
	h := start(t, authority.option)
	wantCode(t, h.admin().work("blog").try("push", "daeploy", "main"), 0)
	h.cmds.set(func(_ context.Context, e gitreceive.Exec) int {
		fmt.Fprintf(e.Stdout, "%s admin=%v apps=%v read=%v %s %s", e.Actor.Name, e.Actor.Admin, e.Actor.Apps, e.Actor.Read, e.Actor.Key, e.Actor.Certificate)
		return 0
	})
	principals := func(list ...string) func(*gossh.Certificate) {
		return func(c *gossh.Certificate) { c.ValidPrincipals = list }
	}
	for _, tt := range []struct {
		change func(*gossh.Certificate)
		want   string
	}{
		{nil, "anna@laptop admin=false apps=[blog] read=[]"},
		{principals("shop", "read:blog", "read:shop", "shop", "Anna", "../x", "read:app:x"), "anna@laptop admin=false apps=[shop] read=[blog]"},
		{principals("admin"), "anna@laptop admin=true apps=[] read=[]"},
		{principals("app:admin"), "anna@laptop admin=false apps=[admin] read=[]"},
		{func(c *gossh.Certificate) { c.KeyId = "\x1b[2Jmal\nlory" }, "?[2Jmal?lory admin=false"},
		{func(c *gossh.Certificate) { c.KeyId = "" }, "certificate 7 admin=false"},
		{func(c *gossh.Certificate) { c.CriticalOptions["source-address"] = "192.0.2.0/24,127.0.0.0/8" }, "anna@laptop admin=false"},
		{func(c *gossh.Certificate) { c.ValidBefore = gossh.CertTimeInfinity }, "anna@laptop admin=false"},
	} {
		p := authority.certified(h, tt.change)
		r := p.ssh("who")
		wantCode(t, r, 0)
		want(t, "the actor", r.out, tt.want, string(p.id)+" serial 7 of CA SHA256:")
	}
	pusher, reader := authority.certified(h, principals("shop")), authority.certified(h, principals("read:blog"))
	wantCode(t, pusher.work("shop").try("push", "daeploy", "main"), 0)
	push := h.hooks.seen()[1]
	if c := push.By.Certificate; push.By.Name != "anna@laptop" || c == nil || c.Serial != 7 {
		t.Errorf("the push came from %+v", push.By)
	}
	reader.git("/", "clone", "-q", "ssh://b@"+h.addr+"/blog", filepath.Join(reader.home, "copy"))
	wantCode(t, reader.work("blog").try("push", "daeploy", "main"), 128)
	wantCode(t, pusher.work("blog").try("push", "daeploy", "main"), 128)
	want(t, "the audit trail", h.audit.String(), "msg=push user=anna@laptop", `certificate="serial 7 of CA SHA256:`)
}

// What is wrong with a certificate keeps out, and the operator reads why.
func TestCertificateRefused(t *testing.T) {
	authority, other := newCA(t), newCA(t)
	revoked := newSigner(t)
	authority.write(authority.revoked, "serial: 100-200\nSerial: 0x10\nid: lost laptop\n"+
		"key: "+string(gossh.MarshalAuthorizedKey(revoked.PublicKey())))
	h := start(t, authority.option)
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	rsaCA, err := gossh.NewSignerFromKey(weak)
	if err != nil {
		t.Fatal(err)
	}
	authority.write(authority.keys, string(gossh.MarshalAuthorizedKey(authority.signer.PublicKey()))+string(gossh.MarshalAuthorizedKey(rsaCA.PublicKey())))
	for name, tt := range map[string]struct {
		change func(*gossh.Certificate)
		why    string
	}{
		"expired":           {func(c *gossh.Certificate) { c.ValidBefore = uint64(time.Now().Add(-time.Second).Unix()) }, "cert has expired"},
		"not yet valid":     {func(c *gossh.Certificate) { c.ValidAfter = uint64(time.Now().Add(time.Hour).Unix()) }, "cert is not yet valid"},
		"valid since never": {func(c *gossh.Certificate) { c.ValidAfter = gossh.CertTimeInfinity }, "cert is not yet valid"},
		"no principals":     {func(c *gossh.Certificate) { c.ValidPrincipals = nil }, "it has no principals"},
		"wrong principals":  {func(c *gossh.Certificate) { c.ValidPrincipals = []string{"Anna", "root@host", "read:", "Admin"} }, "no principal is a right here"},
		"host certificate":  {func(c *gossh.Certificate) { c.CertType = gossh.HostCert }, ""},
		"another CA": {func(c *gossh.Certificate) {
			if err := c.SignCert(rand.Reader, other.signer); err != nil {
				t.Error(err)
			}
		}, ""},
		"SHA-1": {func(c *gossh.Certificate) {
			if err := c.SignCert(rand.Reader, sha1Signer{rsaCA.(gossh.AlgorithmSigner)}); err != nil {
				t.Error(err)
			}
		}, "its signature is a ssh-rsa"},
		"serial revoked": {func(c *gossh.Certificate) { c.Serial = 150 }, "serial 150 revoked"},
		"one serial":     {func(c *gossh.Certificate) { c.Serial = 16 }, "serial 16 revoked"},
		"key id revoked": {func(c *gossh.Certificate) { c.KeyId = "lost laptop" }, "revoked"},
		"id with blanks": {func(c *gossh.Certificate) { c.KeyId = " lost laptop\t\n" }, "revoked"},
		"elsewhere":      {func(c *gossh.Certificate) { c.CriticalOptions["source-address"] = "192.0.2.7,2001:db8::/32" }, "it may not be used from 127.0.0.1"},
		"no address":     {func(c *gossh.Certificate) { c.CriticalOptions["source-address"] = "127.0.0.1,localhost" }, `source-address has "localhost"`},
		"empty address":  {func(c *gossh.Certificate) { c.CriticalOptions["source-address"] = "" }, "source-address has"},
		"force-command":  {func(c *gossh.Certificate) { c.CriticalOptions["force-command"] = "apps" }, `unsupported critical option "force-command"`},
		"unknown option": {func(c *gossh.Certificate) { c.CriticalOptions["verify-required"] = "" }, `unsupported critical option "verify-required"`},
	} {
		t.Run(name, func(t *testing.T) {
			before := len(h.audit.String())
			r := authority.certified(h, tt.change).ssh("version")
			wantCode(t, r, 255)
			want(t, "ssh's output", r.err, "Permission denied (publickey)")
			h.eventually("an event of the refusal that says why", func() bool {
				text := h.audit.String()[before:]
				return strings.Contains(text, "msg=login.refused") && strings.Contains(strings.ReplaceAll(text, `\"`, `"`), tt.why)
			})
		})
	}

	// A key that is revoked, and one of the certificate's that is not its holder's.
	thief := h.person("thief", nil)
	for name, cert := range map[string]*gossh.Certificate{
		"key revoked":       authority.certificate(revoked.PublicKey(), nil),
		"somebody else's":   authority.certificate(newSigner(t).PublicKey(), nil),
		"without signature": {Key: thief.signer.PublicKey(), CertType: gossh.UserCert, SignatureKey: authority.signer.PublicKey(), Signature: &gossh.Signature{}},
	} {
		if err := os.WriteFile(filepath.Join(thief.home, "id-cert.pub"), gossh.MarshalAuthorizedKey(cert), 0o600); err != nil {
			t.Fatal(err)
		}
		if r := thief.ssh("version"); r.code != 255 {
			t.Errorf("%s: exit status %d; want 255\n%s", name, r.code, r.all())
		}
	}
	// OpenSSH's own client does not even load these.
	a, err := gitreceive.OpenAuthorities(authority.keys, "", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for why, change := range map[string]func(*gossh.Certificate){
		"more than 256 principals": func(c *gossh.Certificate) { c.ValidPrincipals = make([]string, 257) },
		"its signature does not verify": func(c *gossh.Certificate) {
			c.KeyId, c.Serial = "anna@office", 4711
			if err := c.SignCert(rand.Reader, other.signer); err != nil {
				t.Error(err)
			}
			c.SignatureKey = authority.signer.PublicKey()
		},
	} {
		if _, err := gitreceive.VerifyCertificate(a, authority.certificate(thief.signer.PublicKey(), change)); err == nil || !strings.Contains(err.Error(), why) || strings.Contains(err.Error(), "4711") {
			t.Errorf("want %q, and nothing that nobody signed; got %v", why, err)
		}
	}
	// Who keeps to the rules still gets in, and a certificate is no key to be added.
	good := authority.certified(h, nil)
	wantCode(t, good.ssh("version"), 0)
	text, err := os.ReadFile(filepath.Join(good.home, "id-cert.pub"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := gitreceive.ParseKey(text); daeploy.KindOf(err) != daeploy.Invalid {
		t.Errorf("keys add takes a certificate: %v", err)
	}
}

// A stranger who knows a CA's public key can write what he likes beside it. None of
// that is in the audit trail, which also counts all his attempts as one.
func TestForgedCertificate(t *testing.T) {
	authority := newCA(t)
	h := start(t, authority.option)
	mallory := newSigner(t)
	for i := range 3 {
		cert := authority.certificate(mallory.PublicKey(), func(c *gossh.Certificate) {
			c.KeyId, c.Serial, c.ValidBefore = fmt.Sprintf("anna@office%d", i), 4711+uint64(i), 1
			c.SignatureKey, c.Signature = authority.signer.PublicKey(), &gossh.Signature{Format: gossh.KeyAlgoED25519, Blob: make([]byte, 64)}
		})
		signer, err := gossh.NewCertSigner(cert, mallory)
		if err != nil {
			t.Fatal(err)
		}
		if c, err := h.dialAs(gossh.PublicKeys(signer)); err == nil {
			c.Close()
			t.Fatal("a forged certificate lets in")
		}
	}
	const line = `name=publickey message="a certificate names a trusted CA, but its signature does not verify"`
	h.eventually("three refusals", func() bool { return strings.Count(h.audit.String(), line) == 3 })
	if text := h.audit.String(); strings.Contains(text, "anna") || strings.Contains(text, "serial") {
		t.Errorf("the audit trail repeats what nobody signed:\n%s", text)
	}
}

// sha1Signer signs as old CAs did.
type sha1Signer struct{ gossh.AlgorithmSigner }

func (s sha1Signer) Algorithms() []string { return []string{gossh.KeyAlgoRSA} }

// Without a CA no certificate lets in.
func TestCertificateWithoutCA(t *testing.T) {
	h := start(t)
	wantCode(t, newCA(t).certified(h, nil).ssh("version"), 255)
}

// F50: a certificate that expires, or is revoked, ends its sessions within five
// seconds, and so does a CA that is not trusted any more.
func TestCertificateEnds(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*gossh.Certificate)
		end    func(*ca)
	}{
		"expires":       {func(c *gossh.Certificate) { c.ValidBefore = uint64(time.Now().Add(3 * time.Second).Unix()) }, func(*ca) {}},
		"is revoked":    {nil, func(c *ca) { c.write(c.revoked, "serial: 7\n") }},
		"by its hash":   {nil, func(c *ca) { c.write(c.revoked, "hash: "+gossh.FingerprintSHA256(c.signer.PublicKey())+"\n") }},
		"no CA":         {nil, func(c *ca) { c.write(c.keys, string(gossh.MarshalAuthorizedKey(newSigner(c.t).PublicKey()))) }},
		"no file":       {nil, func(c *ca) { _ = os.Remove(c.keys) }},
		"broken file":   {nil, func(c *ca) { c.write(c.revoked, "serial: x\n") }},
		"open to write": {nil, func(c *ca) { _ = os.Chmod(c.keys, 0o666) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			authority := newCA(t)
			h := start(t, authority.option)
			running := make(chan struct{})
			h.cmds.set(func(ctx context.Context, _ gitreceive.Exec) int {
				close(running)
				<-ctx.Done()
				return 1
			})
			p := authority.certified(h, tt.change)
			ended := make(chan result, 1)
			go func() { ended <- p.ssh("wait") }()
			<-running
			tt.end(authority)
			began := time.Now()
			wantCode(t, <-ended, 255)
			if d := time.Since(began); d > 10*time.Second {
				t.Errorf("the session ended after %s", d)
			}
			want(t, "the audit trail", h.audit.String(), "msg=login.ended user=anna@laptop", "the certificate holds no longer")
			wantCode(t, p.ssh("version"), 255)
		})
	}
	t.Attr("F50", "certificates that expire or are revoked, and CA files that go bad, under a running command: the session ends within five seconds")
}

// CAs that are adopted let in from then on, and those that are no more end the
// sessions of their certificates, as if their file had changed (F50).
func TestAdoptAuthorities(t *testing.T) {
	authority := newCA(t)
	open := func(keys string) *gitreceive.Authorities {
		a, err := gitreceive.OpenAuthorities(keys, "", slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	adopting := open("")
	h := start(t, func(c *gitreceive.Config) { c.Authorities = adopting })
	p := authority.certified(h, nil)
	wantCode(t, p.ssh("version"), 255)
	adopting.Adopt(open(authority.keys))
	running := make(chan struct{})
	h.cmds.set(func(ctx context.Context, _ gitreceive.Exec) int {
		close(running)
		<-ctx.Done()
		return 1
	})
	ended := make(chan result, 1)
	go func() { ended <- p.ssh("wait") }()
	<-running
	adopting.Adopt(open(""))
	wantCode(t, <-ended, 255)
	wantCode(t, p.ssh("version"), 255)
}

// TestOpenAuthorities: what is wrong with the files keeps the daemon from
// starting.
func TestOpenAuthorities(t *testing.T) {
	authority := newCA(t)
	line := string(gossh.MarshalAuthorizedKey(authority.signer.PublicKey()))
	for _, tt := range []struct{ name, keys, revoked, want string }{
		{"all but the last line", line + "\n# another\r\n" + line, "# none\n\nserial: 7 \n serial: 0-18446744073709551615\nID: x\nsha256 is no word of ours", "line 6: this is no public key"},
		{"no key", "# nothing\n", "", "ssh.trusted_user_ca_keys"},
		{"words", "hello\n", "", "line 1: this is not an OpenSSH public key"},
		{"options", line + "cert-authority " + line, "", "line 2: options before a key"},
		{"certificate", string(gossh.MarshalAuthorizedKey(authority.certificate(authority.signer.PublicKey(), nil))), "", "are not accepted"},
		{"private key", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n", "", "there is a private key"},
		{"long", strings.Repeat("#\n", 3<<20), "", "more than"},
		{"serial", line, "serial: seven", "line 1: serial: is followed by no number"},
		{"range", line, "\nserial: 7-3", "line 2: serial:"},
		{"id", line, "id:", "no key id"},
		{"hash", line, "hash: MD5:00", "no SHA256 fingerprint"},
		{"binary list", line, "SSHKRL\n\x00\x00", "give the text that it was made from"},
	} {
		authority.write(authority.keys, tt.keys)
		authority.write(authority.revoked, tt.revoked)
		a, err := gitreceive.OpenAuthorities(authority.keys, authority.revoked, slog.New(slog.DiscardHandler))
		if a != nil || daeploy.KindOf(err) != daeploy.Config || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "AAAA\n") {
			t.Errorf("%s: %v; want %q", tt.name, err, tt.want)
		}
	}
	for _, path := range []string{filepath.Join(t.TempDir(), "missing"), t.TempDir()} {
		if _, err := gitreceive.OpenAuthorities(path, "", slog.New(slog.DiscardHandler)); daeploy.KindOf(err) != daeploy.Config {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// FuzzCertificate: no certificate makes the check panic, and none that is not
// one of the seeds gets in.
func FuzzCertificate(f *testing.F) {
	authority := &ca{t: f, signer: newSigner(f)}
	dir := f.TempDir()
	keys := filepath.Join(dir, "ca.pub")
	if err := os.WriteFile(keys, gossh.MarshalAuthorizedKey(authority.signer.PublicKey()), 0o600); err != nil {
		f.Fatal(err)
	}
	a, err := gitreceive.OpenAuthorities(keys, "", slog.New(slog.DiscardHandler))
	if err != nil {
		f.Fatal(err)
	}
	good := authority.certificate(newSigner(f).PublicKey(), nil)
	f.Add(good.Marshal())
	f.Add(good.Key.Marshal())
	forever := authority.certificate(newSigner(f).PublicKey(), func(c *gossh.Certificate) {
		c.ValidBefore, c.KeyId, c.ValidPrincipals = 1<<63, strings.Repeat("\xff", 300), []string{"", "\x00", "read:"}
		c.CriticalOptions["source-address"] = ",,"
	})
	f.Add(forever.Marshal())
	f.Fuzz(func(t *testing.T, blob []byte) {
		key, err := gossh.ParsePublicKey(blob)
		if err != nil {
			return
		}
		cert, ok := key.(*gossh.Certificate)
		if !ok {
			return
		}
		actor, err := gitreceive.VerifyCertificate(a, cert)
		if err == nil && string(good.Marshal()) != string(blob) {
			t.Errorf("%q got in as %+v", blob, actor)
		}
	})
}

// FuzzRevocations: a list of what is revoked is read or refused.
func FuzzRevocations(f *testing.F) {
	for _, s := range []string{"serial: 1-2\n", "id: x", "hash: SHA256:", "key: ssh-ed25519 AAAA", "SSHKRL\n", ":", "serial:-", "\r\n#\n", "serial: 18446744073709551616"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := gitreceive.ParseRevocations(text); err != nil && strings.Contains(err.Error(), "PRIVATE") {
			t.Errorf("%q gives %v", text, err)
		}
	})
}
