package gitreceive

import (
	"bytes"
	"fmt"
	"strings"

	gossh "golang.org/x/crypto/ssh"

	"github.com/daeploy/daeploy"
)

// maxKeyFile bounds the text a public key is read from, in bytes.
const maxKeyFile = 64 << 10

// ParseKey reads one public key in the form of OpenSSH's .pub and
// authorized_keys files; blank lines and lines that begin with # are skipped.
// ID, Type and Public of the key are set. Options before the key are refused:
// they would promise what is not kept. The text of a private key is never
// repeated in the error (F65).
func ParseKey(text []byte) (daeploy.Key, error) {
	if len(text) > maxKeyFile {
		return daeploy.Key{}, badKey(1, fmt.Sprintf("the text has more than %d bytes", maxKeyFile))
	}
	if bytes.Contains(text, []byte("PRIVATE KEY")) {
		return daeploy.Key{}, badKey(1, "this is a private key; keep it to yourself and give the file that ends in .pub")
	}
	var found daeploy.Key
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if found.ID != "" {
			return daeploy.Key{}, badKey(i+1, "there is a second key; add them one by one")
		}
		key, err := parseKeyLine(line)
		if err != "" {
			return daeploy.Key{}, badKey(i+1, err)
		}
		found = key
	}
	if found.ID == "" {
		return daeploy.Key{}, badKey(1, "there is no key")
	}
	return found, nil
}

// parseKeyLine reads one line; problem says what is wrong with it.
func parseKeyLine(line string) (key daeploy.Key, problem string) {
	public, _, options, rest, err := gossh.ParseAuthorizedKey([]byte(line))
	switch {
	case err != nil:
		return key, "this is not an OpenSSH public key"
	case len(options) > 0:
		return key, "options before a key are not supported"
	case len(bytes.TrimSpace(rest)) > 0:
		return key, "there is something after the key"
	case !accepted(public):
		return key, fmt.Sprintf("keys of type %s are not accepted; use ed25519, ECDSA, sk-* or RSA of 2048 to 8192 bits", public.Type())
	}
	return daeploy.Key{
		ID: keyID(public), Type: public.Type(),
		Public: strings.TrimSpace(string(gossh.MarshalAuthorizedKey(public))),
	}, ""
}

func badKey(line int, problem string) error {
	return &daeploy.Error{
		Kind: daeploy.Invalid, Code: "key_invalid", Message: fmt.Sprintf("line %d: %s", line, problem),
		Hint: "give one line such as ssh-ed25519 AAAA... from a file that ends in .pub",
	}
}
