package buildpipeline_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/buildpipeline"
)

// TestScriptsURL: S20, S22. A prefix is a host and a directory, not a text.
func TestScriptsURL(t *testing.T) {
	const refused, invalid = "scripts_url_refused", "builder_invalid"
	for _, test := range []struct{ prefix, at, from, code string }{
		{"", "https://h.example/s2i", "", refused},
		{"https://h.example/s2i", "https://h.example/s2i", "https://h.example/s2i", ""},
		{"https://h.example/s2i/", "https://h.example/s2i", "https://h.example/s2i", ""},
		{"https://h.example/s2i", "https://h.example/s2i/python/", "https://h.example/s2i/python", ""},
		{"https://h.example", "https://H.Example:443/a//b/./c", "https://h.example/a/b/c", ""},
		{"http://h.example:80", "http://h.example", "http://h.example/", ""},
		{"http://[::1]:8080/", "http://[::1]:8080/x", "http://[::1]:8080/x", ""},
		{"http://[::1]/", "http://[::1]:80/x", "http://[::1]/x", ""},
		{"https://h.example/s2i", "https://h.example/s2i-other", "", refused},
		{"https://h.example/s2i", "https://h.example/", "", refused},
		{"https://h.example", "https://h.example.evil.example/", "", refused},
		{"https://h.example", "https://h.example:444/", "", refused},
		{"https://h.example", "http://h.example/", "", refused},
		{"https://h.example/s2i", "https://h.example/s2i/../secret", "", refused},
		{"https://h.example/s2i", "https://h.example/s2i/%2e%2e/secret", "", refused},
		{"https://h.example/s2i", `https://h.example/s2i/..\secret`, "", refused},
		{"https://h.example/s2i", "https://h.example/s2i/..%5Csecret", "", refused},
		{"https://h.example", "https://h.example@evil.example/", "", invalid},
		{"https://h.example", "https://user:word@h.example/", "", invalid},
		{"https://h.example", "https://h.example/a?b=c", "", invalid},
		{"https://h.example", "https://h.example/a#b", "", invalid},
		{"https://h.example", "https:///a", "", invalid},
		{"https://h.example", "https://h.example/%zz", "", invalid},
		{"https://h.example", "file:///etc", "", refused},
	} {
		var prefixes []string
		if test.prefix != "" {
			prefixes = []string{"https://other.example/x", test.prefix}
		}
		from, err := buildpipeline.Web(prefixes, test.at)
		code := ""
		if err != nil {
			code = daeploy.Public(err, "test").Code
		}
		if from != test.from || code != test.code {
			t.Errorf("%s below %q: %q, code %q (%v); want %q, %q", test.at, test.prefix, from, code, err, test.from, test.code)
		}
	}
}

// TestURLPrefixFaults: what an operator may not list.
func TestURLPrefixFaults(t *testing.T) {
	for _, prefix := range []string{"", "h.example", "ftp://h.example", "https://", "https://:80/", "https://u@h.example", "https://h.example/?a", "https://h.example/#a", "http:opaque", "http://h.example:port/"} {
		if _, err := buildpipeline.ParseURLPrefixes([]string{prefix}); err == nil {
			t.Errorf("%q is a prefix", prefix)
		}
	}
}

// FuzzURLPrefixes: whatever lies below a prefix is on its host and path, as the
// standard library resolves it.
func FuzzURLPrefixes(f *testing.F) {
	f.Add("https://h.example/s2i/../x")
	f.Add("https://h.example/s2i/%2e%2e/x?y")
	f.Add("HTTPS://H.EXAMPLE:443/s2i//x")
	prefixes, err := buildpipeline.ParseURLPrefixes([]string{"https://h.example/s2i"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		u, err := url.Parse(text)
		if err != nil || !prefixes.Contain(u) {
			return
		}
		to := u.ResolveReference(&url.URL{Path: u.Path})
		if to.Scheme != "https" || !strings.EqualFold(to.Hostname(), "h.example") || to.Port() != "" && to.Port() != "443" ||
			!strings.HasPrefix(strings.TrimLeft(to.Path, "/")+"/", "s2i/") && !strings.Contains(to.Path, "//") && !strings.Contains(to.Path, "/.") {
			t.Errorf("%q is let through; it is %s", text, to)
		}
	})
}
