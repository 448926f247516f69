package gitreceive

import (
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// remote is a repository elsewhere that may be asked. Its url holds no
// password, and no part that git or ssh could take for an option.
type remote struct {
	url    string
	scheme string // https or ssh
	host   string // lower case, with the port if it is not the scheme's own
	login  *url.Userinfo
}

const maxRemoteURL = 2048 // bytes

var (
	remoteHost = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$`)
	remotePort = regexp.MustCompile(`^[1-9][0-9]{0,4}$`)
	remoteUser = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)
	scpLike    = regexp.MustCompile(`^([^/:@]+@)?([^/:@]+):([^:].*)$`)
	ownPorts   = map[string]string{"https": "443", "ssh": "22"}
)

// parseRemote reads the URL of a submodule as the commit has it. If nobody can
// be asked, why says so in words that hold nothing of the URL but its host.
func parseRemote(raw string) (r remote, why string) {
	switch {
	case raw == "":
		return r, modulesFile + " names no URL for it"
	case len(raw) > maxRemoteURL:
		return r, "its URL is too long"
	case strings.ContainsFunc(raw, odd), strings.ContainsAny(raw, `\'"`):
		return r, "its URL has characters that are not accepted"
	case strings.HasPrefix(raw, "."), strings.HasPrefix(raw, "/"):
		return r, "its URL is relative, and this server does not know to what"
	}
	if !strings.Contains(raw, "://") {
		return parseSCP(raw)
	}
	u, err := url.Parse(raw)
	if err != nil || u.Opaque != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.Trim(u.Path, "/") == "" || strings.ContainsFunc(u.Path, odd) || bracketed(u.Path) {
		return r, "its URL is not one of a repository"
	}
	r.scheme = strings.ToLower(u.Scheme)
	if ownPorts[r.scheme] == "" {
		return r, "its URL is neither https nor ssh"
	}
	if why := r.setHost(u.Hostname(), u.Port()); why != "" {
		return r, why
	}
	clean := url.URL{Scheme: r.scheme, Host: r.host, Path: u.Path, RawPath: u.RawPath}
	if r.scheme == "https" {
		r.login = u.User
	} else if u.User != nil {
		// ssh takes no password here: it is dropped.
		if !remoteUser.MatchString(u.User.Username()) {
			return r, "its URL has a user that is not accepted"
		}
		clean.User = url.User(u.User.Username())
	}
	r.url = clean.String()
	return r, ""
}

// odd tells of what has no place in an address: it is no printable ASCII.
func odd(c rune) bool { return c <= ' ' || c > '~' }

// bracketed tells of a path in which git would look for the host: for ssh it
// takes what follows "@[", wherever it stands, for an address of IPv6.
func bracketed(path string) bool { return strings.ContainsAny(path, "[]") }

// parseSCP reads user@host:path, git's short form for ssh.
func parseSCP(raw string) (r remote, why string) {
	m := scpLike.FindStringSubmatch(raw)
	if m == nil || strings.HasPrefix(m[3], "-") || bracketed(m[3]) {
		return r, "its URL is neither https nor ssh"
	}
	r.scheme = "ssh"
	if user := strings.TrimSuffix(m[1], "@"); user != "" && !remoteUser.MatchString(user) {
		return r, "its URL has a user that is not accepted"
	}
	if why := r.setHost(m[2], ""); why != "" {
		return r, why
	}
	r.url = m[1] + r.host + ":" + m[3]
	return r, ""
}

func (r *remote) setHost(host, port string) (why string) {
	host = strings.ToLower(host)
	if len(host) > 253 || !remoteHost.MatchString(host) || port != "" && !remotePort.MatchString(port) {
		return "its URL has a host that is not accepted"
	}
	r.host = host
	if port != "" && port != ownPorts[r.scheme] {
		r.host = net.JoinHostPort(host, port)
	}
	return ""
}

// listed tells whether the host is one of hosts, each "host" or "host:port"; a
// bare host stands for the scheme's own port.
func (r remote) listed(hosts []string) bool {
	return slices.ContainsFunc(hosts, func(h string) bool {
		h = strings.ToLower(h)
		return h == r.host || h == r.host+":"+ownPorts[r.scheme]
	})
}
