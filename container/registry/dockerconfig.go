package registry

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// login is what a registry is told; user is empty for an identity token.
type login struct{ user, secret string }

// dockerConfig is the part of docker's config.json that is read. Its programs
// that keep passwords are not run: they would be a stranger's code in the
// daemon's place.
type dockerConfig struct {
	Auths map[string]struct {
		Auth          string `json:"auth"`
		Username      string `json:"username"`
		Password      string `json:"password"`
		IdentityToken string `json:"identitytoken"`
	} `json:"auths"`
	CredHelpers map[string]string `json:"credHelpers"`
	CredsStore  string            `json:"credsStore"`
}

func readDocker(path string) (map[string]login, error) {
	text, err := ReadSecret(path)
	if err != nil {
		return nil, err
	}
	logins, err := parseDocker(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return logins, nil
}

// parseDocker gives the logins by hostKey. Errors name places, never values:
// the JSON decoder's own would quote a password that is a number.
func parseDocker(text []byte) (map[string]login, error) {
	var config dockerConfig
	if err := json.Unmarshal(bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")), &config); err != nil {
		at := int64(0)
		if e, ok := errors.AsType[*json.SyntaxError](err); ok {
			at = e.Offset
		} else if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			at = e.Offset
		}
		return nil, fmt.Errorf("is not as docker writes its config.json, at byte %d", at)
	}
	if len(config.CredHelpers) > 0 || config.CredsStore != "" {
		return nil, errors.New("credHelpers and credsStore are programs, which are not run here; write the credentials into auths")
	}
	logins := map[string]login{}
	for name, auth := range config.Auths {
		key, err := authKey(name)
		if err != nil {
			return nil, fmt.Errorf("auths.%q %w", name, err)
		}
		if _, twice := logins[key]; twice {
			return nil, fmt.Errorf("auths names %s twice", key)
		}
		l := login{auth.Username, auth.Password}
		switch {
		case auth.IdentityToken != "":
			l = login{secret: auth.IdentityToken}
		case auth.Auth != "":
			plain, err := base64.StdEncoding.DecodeString(auth.Auth)
			user, password, ok := strings.Cut(strings.TrimRight(string(plain), "\x00"), ":")
			if err != nil || !ok {
				return nil, fmt.Errorf("auths.%q.auth is not user:password in base64", name)
			}
			l = login{user, password}
		}
		if l.secret == "" || l.user == "" && auth.IdentityToken == "" {
			return nil, fmt.Errorf("auths.%q has neither auth, nor username and password, nor identitytoken", name)
		}
		if strings.ContainsFunc(l.user+l.secret, forbidden) || strings.Contains(l.user, ":") {
			return nil, fmt.Errorf("auths.%q has a user with a colon, or a control character", name)
		}
		logins[key] = l
	}
	return logins, nil
}

// authKey reads the name of an entry, which old versions of docker wrote as the
// address of the registry's interface. A path inside a registry would give the
// credentials to the rest of it too, and is refused.
func authKey(name string) (string, error) {
	host := strings.TrimPrefix(strings.TrimPrefix(name, "https://"), "http://")
	host, path, _ := strings.Cut(host, "/")
	if !slices.Contains([]string{"", "v1", "v1/", "v2", "v2/"}, path) {
		return "", errors.New("names a part of a registry; credentials are for a whole one")
	}
	return hostKey(host)
}
