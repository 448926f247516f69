package gitreceive

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
)

// SubmoduleConfig is what the operator says of other hosts' repositories.
// Paths are absolute; the files are read anew at each fetch.
type SubmoduleConfig struct {
	Hosts       []string // "host" or "host:port", compared as they stand
	SSHKey      string   // private key without a passphrase; "" = nothing by ssh
	KnownHosts  string   // of ssh; goes with SSHKey
	CA          string   // PEM file of the authorities for https; "" = the system's
	Credentials string   // for https, in the form of git-credential-store; "" = none
}

var (
	listedHost = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[1-9][0-9]{0,4})?$`)
	plainPath  = regexp.MustCompile(`^/[A-Za-z0-9._/+@-]+$`) // ssh and the shell that starts it read nothing into it
)

// Check reads everything once and says what could not be used.
func (c SubmoduleConfig) Check() error {
	for _, h := range c.Hosts {
		if !listedHost.MatchString(h) {
			return fmt.Errorf("hosts: %q is neither \"host\" nor \"host:port\"", h)
		}
	}
	if (c.SSHKey == "") != (c.KnownHosts == "") {
		return fmt.Errorf("ssh_key and known_hosts go together")
	}
	for key, path := range map[string]string{"ssh_key": c.SSHKey, "known_hosts": c.KnownHosts, "ca": c.CA, "credentials": c.Credentials} {
		if path == "" {
			continue
		}
		if !plainPath.MatchString(path) || filepath.Clean(path) != path {
			return fmt.Errorf("%s: %q is not a clean absolute path of letters, digits and ._/+@-", key, path)
		}
		if _, err := readPlain(path, key == "ssh_key" || key == "credentials"); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	_, err := c.logins()
	return err
}

// refuse says why a repository is not asked, or "".
func (c SubmoduleConfig) refuse(r remote) string {
	switch {
	case !r.listed(c.Hosts):
		return r.host + " is not a host that this server fetches from"
	case r.scheme == "ssh" && c.SSHKey == "":
		return "this server has no key for ssh"
	}
	return ""
}

// ssh is the command by which git starts ssh. It reads none of anybody's files
// but the two, and believes no host that is not in them.
func (c SubmoduleConfig) ssh() string {
	words := []string{"ssh", "-F", "/dev/null", "-i", c.SSHKey, "-T"}
	for _, option := range []string{
		"BatchMode=yes", "IdentitiesOnly=yes", "IdentityAgent=none", "PreferredAuthentications=publickey",
		"StrictHostKeyChecking=yes", "UserKnownHostsFile=" + c.KnownHosts, "GlobalKnownHostsFile=/dev/null", "UpdateHostKeys=no",
		"ConnectTimeout=20", "ServerAliveInterval=15", "ServerAliveCountMax=4",
		"ForwardAgent=no", "ClearAllForwardings=yes", "ControlPath=none", "LogLevel=ERROR",
	} {
		words = append(words, "-o", option)
	}
	return strings.Join(words, " ")
}

// login is what the operator's file has for a host of https, or nil.
func (c SubmoduleConfig) login(to remote) (*url.Userinfo, error) {
	logins, err := c.logins()
	if err != nil {
		return nil, err
	}
	return logins[to.host], nil
}

// logins reads lines of https://user:password@host[:port]. Errors name lines,
// never what stands there.
func (c SubmoduleConfig) logins() (map[string]*url.Userinfo, error) {
	if c.Credentials == "" {
		return nil, nil
	}
	text, err := readPlain(c.Credentials, true)
	if err != nil {
		return nil, fmt.Errorf("credentials: %w", err)
	}
	logins := map[string]*url.Userinfo{}
	number := 0
	for line := range bytes.Lines(text) {
		number++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		u, err := url.Parse(string(line))
		if err != nil || u.Scheme != "https" || u.User == nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
			return nil, fmt.Errorf("credentials: line %d is not https://user:password@host", number)
		}
		r := remote{scheme: u.Scheme}
		if why := r.setHost(u.Hostname(), u.Port()); why != "" {
			return nil, fmt.Errorf("credentials: line %d has a host that is not accepted", number)
		}
		if _, twice := logins[r.host]; !twice {
			logins[r.host] = u.User
		}
	}
	return logins, nil
}

func basic(login *url.Userinfo) string {
	password, _ := login.Password()
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(login.Username()+":"+password))
}

// readPlain reads a small regular file; a secret one only if nobody but its
// owner, who is root or this process, can read it.
func readPlain(path string, secret bool) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO must not hold us
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", path)
	}
	if mode := info.Mode().Perm(); secret && mode&0o077 != 0 {
		return nil, fmt.Errorf("%s has mode %04o, so others than its owner can read it; chmod 600 it", path, mode)
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; secret && owner != 0 && int(owner) != os.Geteuid() {
		return nil, fmt.Errorf("%s belongs to uid %d; it must belong to root", path, owner)
	}
	const most = 4 << 20 // a bundle of authorities has some hundred KiB
	text, err := io.ReadAll(io.LimitReader(file, most+1))
	if err == nil && len(text) > most {
		err = fmt.Errorf("%s is larger than 4 MiB", path)
	}
	return text, err
}
