package gitreceive_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"strings"
	"testing"

	gossh "golang.org/x/crypto/ssh"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/gitreceive"
)

func publicLine(t *testing.T, key any) string {
	t.Helper()
	public, err := gossh.NewPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(gossh.MarshalAuthorizedKey(public)))
}

// TestParseKey: F65.
func TestParseKey(t *testing.T) {
	ed, secret, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	block, err := gossh.MarshalPrivateKey(secret, "")
	if err != nil {
		t.Fatal(err)
	}
	line := publicLine(t, ed)
	for _, test := range []struct{ name, text, problem string }{
		{"plain", line, ""},
		{"comment and line feed", line + " anna@laptop\n", ""},
		{"CR LF and blank lines", "\r\n# my key\r\n" + line + "\r\n\r\n", ""},
		{"ecdsa", publicLine(t, ec.Public()), ""},
		{"short RSA", publicLine(t, short.Public()), "line 1: keys of type ssh-rsa are not accepted"},
		{"options", `command="sh" ` + line, "line 1: options"},
		{"two keys", line + "\n" + publicLine(t, ec.Public()), "line 2: there is a second key"},
		{"no key", "# nothing\n", "there is no key"},
		{"words", "hello there", "line 1: this is not"},
		{"10 MB", strings.Repeat("x", 10<<20), "more than"},
		{"private", string(pem.EncodeToMemory(block)), "this is a private key"},
	} {
		key, err := gitreceive.ParseKey([]byte(test.text))
		if test.problem == "" {
			if err != nil {
				t.Errorf("%s: %v", test.name, err)
			} else if !strings.HasPrefix(string(key.ID), "SHA256:") || !strings.HasPrefix(key.Public, key.Type+" ") || strings.Count(key.Public, " ") != 1 {
				t.Errorf("%s: read as %+v", test.name, key)
			}
			continue
		}
		if daeploy.KindOf(err) != daeploy.Invalid || !strings.Contains(err.Error(), test.problem) {
			t.Errorf("%s: error %v, want %q", test.name, err, test.problem)
		}
		if secretLine := strings.Split(test.text, "\n"); len(secretLine) > 2 && test.name == "private" && strings.Contains(err.Error(), secretLine[1]) {
			t.Errorf("%s: the error repeats the key", test.name)
		}
	}
	t.Attr("F65", "comments, CR LF, options, two keys, words, 10 MB, a private key: read, or refused with the line, and the private key not repeated")
}

func FuzzParseKey(f *testing.F) {
	f.Add([]byte("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJn1kz2yMP2vSn8g4nFDsgvIXxyKcOmQ9xTqjoEJ0y5W anna"))
	f.Add([]byte("restrict ssh-rsa AAAA"))
	f.Fuzz(func(t *testing.T, text []byte) {
		key, err := gitreceive.ParseKey(text)
		if err != nil {
			if daeploy.KindOf(err) != daeploy.Invalid {
				t.Errorf("error without a kind: %v", err)
			}
			return
		}
		again, err := gitreceive.ParseKey([]byte(key.Public))
		if err != nil || again.ID != key.ID {
			t.Errorf("%q reads back as %+v, %v", key.Public, again, err)
		}
	})
}
