package buildpipeline

import (
	"encoding/base64"
	"net/url"
	"slices"
	"strings"

	"github.com/daeploy/daeploy"
)

// Proxies are those that builds are told of (S75); empty ones are not set.
type Proxies struct {
	HTTP, HTTPS, All string // URLs
	No               string // comma list of hosts
}

// variables are the names that programs read, in both spellings.
func (p Proxies) variables() map[string]string {
	env := map[string]string{}
	for name, value := range map[string]string{"HTTP_PROXY": p.HTTP, "HTTPS_PROXY": p.HTTPS, "ALL_PROXY": p.All, "NO_PROXY": p.No} {
		if value != "" {
			env[name], env[strings.ToLower(name)] = value, value
		}
	}
	return env
}

// passwords are what is to be hidden of a variable: the credentials of a proxy,
// or those in any URL.
func passwords(name, value string) (texts []string) {
	if strings.Contains(strings.ToLower(name), "proxy") && !strings.EqualFold(name, "GOPROXY") {
		return credentials(value)
	}
	// A variable may hold several URLs, as GOPROXY does.
	for part := range strings.FieldsFuncSeq(value, func(r rune) bool { return r == ',' || r == '|' || r == ' ' }) {
		if scheme, rest, found := strings.Cut(part, "://"); found {
			authority, _, _ := strings.Cut(rest, "/")
			texts = append(texts, credentials(scheme+"://"+authority)...)
		}
	}
	return texts
}

// leastAlone is how long a password or a user without one must be to be hidden
// wherever it stands: shorter ones are parts of common words.
const leastAlone = 4

// credentials are the spellings in which the user and password of a proxy's URL
// come along: as written, decoded, and as the header Proxy-Authorization has
// them.
func credentials(proxy string) []string {
	_, rest, found := strings.Cut(proxy, "://")
	if !found {
		rest = proxy // "user:password@host:port" is understood by many programs
	}
	at := strings.LastIndex(rest, "@")
	if at < 1 {
		return nil
	}
	written := rest[:at]
	decoded := written
	if text, err := url.PathUnescape(written); err == nil {
		decoded = text
	}
	texts := []string{base64.StdEncoding.EncodeToString([]byte(decoded))}
	for _, pair := range []string{written, decoded} {
		user, password, _ := strings.Cut(pair, ":")
		if password == "" {
			password = user
		} else {
			texts = append(texts, pair)
		}
		if len(password) >= leastAlone {
			texts = append(texts, password)
		}
	}
	return slices.DeleteFunc(texts, func(t string) bool { return len(t) > daeploy.OutputKept })
}
