package buildpipeline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/daeploy/daeploy"
)

// scriptBytes bounds a script that is fetched (S53).
const scriptBytes = 1 << 20

// URLPrefixes are where scripts may be fetched from (S20). The zero value is
// nowhere.
type URLPrefixes struct {
	prefixes []*url.URL
}

// ParseURLPrefixes reads prefixes such as "https://scripts.example.org/s2i". A
// prefix is a host and a directory: it ends at a slash, written or not.
func ParseURLPrefixes(texts []string) (URLPrefixes, error) {
	var p URLPrefixes
	for _, text := range texts {
		u, err := parseScriptsURL(text)
		if err != nil {
			return URLPrefixes{}, fmt.Errorf("%q is not a URL prefix: %w", text, err)
		}
		p.prefixes = append(p.prefixes, u)
	}
	return p, nil
}

// parseScriptsURL reads a URL below which scripts lie. Two spellings of one
// place become one: host in lower case without its usual port, path cleaned.
func parseScriptsURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, errors.New("it cannot be read")
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("it begins with neither http:// nor https://")
	case u.Hostname() == "" || u.Opaque != "":
		return nil, errors.New("it names no host")
	case u.User != nil:
		return nil, errors.New("it has a user in it")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return nil, errors.New("it has a query or a fragment")
	}
	return canonical(u), nil
}

func canonical(u *url.URL) *url.URL {
	host := net.JoinHostPort(strings.ToLower(u.Hostname()), u.Port())
	host = strings.TrimSuffix(host, map[string]string{"http": ":80", "https": ":443"}[u.Scheme])
	return &url.URL{Scheme: u.Scheme, Host: strings.TrimSuffix(host, ":"), Path: path.Clean("/" + u.Path)}
}

// Contain tells whether u, which may have a query, lies below one of the
// prefixes.
func (p URLPrefixes) Contain(u *url.URL) bool {
	// A server might clean what is left of "..", or take a backslash for a slash.
	if u.User != nil || slices.Contains(strings.FieldsFunc(u.Path, func(r rune) bool { return r == '/' || r == '\\' }), "..") {
		return false
	}
	at := canonical(u)
	return slices.ContainsFunc(p.prefixes, func(prefix *url.URL) bool {
		return at.Scheme == prefix.Scheme && at.Host == prefix.Host &&
			(at.Path == prefix.Path || strings.HasPrefix(at.Path, strings.TrimSuffix(prefix.Path, "/")+"/"))
	})
}

// Names tells whether a prefix has this host, as a name or an address, so that
// the operator has chosen it in so many words.
func (p URLPrefixes) Names(host string) bool {
	return slices.ContainsFunc(p.prefixes, func(u *url.URL) bool { return u.Hostname() == host })
}

// allow lets a layout's scripts come from the web, if the operator does.
func (l *layout) allow(ref daeploy.ImageRef, p URLPrefixes) {
	if l.web == "" {
		return
	}
	u, err := parseScriptsURL(l.web)
	switch {
	case err != nil:
		l.Refused = builderInvalid(ref, fmt.Sprintf("its scripts URL is %q: %v", brief(l.web), err), "correct its "+l.Input)
	case p.Contain(u):
		l.Refused, l.web = nil, u.String()
		return
	}
	l.web = ""
}

// webScripts fetches the scripts of one image.
type webScripts struct {
	fetch Fetcher
	image daeploy.ImageRef
	input string // where base comes from
	base  string // URL
}

// get reads one script, and says where it lies; fs.ErrNotExist if it is not
// there.
func (w webScripts) get(ctx context.Context, name string) (data []byte, at string, err error) {
	at = strings.TrimSuffix(w.base, "/") + "/" + name
	data, err = w.fetch.Fetch(ctx, at, scriptBytes)
	switch {
	case err == nil:
		return append([]byte{}, data...), at, nil
	case errors.Is(err, fs.ErrNotExist), ctx.Err() != nil:
		return nil, at, err
	}
	why := "this server cannot fetch it"
	if e, ok := errors.AsType[*daeploy.Error](err); ok {
		why, err = e.Message, e.Err
	}
	return nil, at, &daeploy.Error{
		Kind: daeploy.BuildFailed, Code: "script_fetch_failed", Err: err,
		Message: fmt.Sprintf("%s could not be fetched: %s", brief(at), brief(why)),
		Hint:    fmt.Sprintf("the URL comes from the %s of %s; ask the operator", w.input, w.image),
	}
}
