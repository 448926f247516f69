// Package registry reads what the operator says of registries: as whom this
// host asks them, and whose certificates it trusts. Files are read anew each
// time, so that a changed password needs no restart. No error of this package
// holds anything of a file's content.
package registry

import (
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/daeploy/daeploy"
)

// Config says where credentials and certificates are.
type Config struct {
	Hosts map[string]Host // by "host" or "host:port"; they go before Files
	Files []string        // each as docker's config.json; the first that knows a host decides
}

// Host is one registry, or the host of its token service. Paths are absolute.
type Host struct {
	User, PasswordFile string // both or none
	CA                 string // PEM file: with it, no other certificates are trusted for this host
}

// Check reads everything once and says what could not be used.
func (c Config) Check() error {
	for name, h := range c.Hosts {
		if err := h.check(name); err != nil {
			return fmt.Errorf("[registry.hosts.%q] %w", name, err)
		}
	}
	for _, file := range c.Files {
		if !filepath.IsAbs(file) {
			return fmt.Errorf("credentials %q is not an absolute path", file)
		}
		if _, err := readDocker(file); err != nil {
			return err
		}
	}
	return nil
}

func (h Host) check(name string) error {
	if _, err := hostKey(name); err != nil {
		return err
	}
	switch {
	case h == Host{}:
		return errors.New("says nothing; it can have user and password_file, and ca")
	case (h.User == "") != (h.PasswordFile == ""):
		return errors.New("needs both user and password_file, or none of them")
	case strings.ContainsFunc(h.User, forbidden) || strings.Contains(h.User, ":"):
		return errors.New("has a user with a colon or a control character")
	}
	if h.PasswordFile != "" {
		if _, err := h.password(); err != nil {
			return err
		}
	}
	if h.CA != "" {
		_, err := h.ca()
		return err
	}
	return nil
}

// Credentials gives user and secret for a host; "" and "" if there are none,
// "" and a secret for an identity token.
func (c Config) Credentials(host string) (user, secret string, err error) {
	if h, ok := c.host(host); ok && h.User != "" {
		secret, err = h.password()
		return h.User, secret, err
	}
	for _, file := range c.Files {
		known, err := readDocker(file)
		if err != nil {
			return "", "", err
		}
		if key, err := hostKey(host); err == nil {
			if l, ok := known[key]; ok {
				return l.user, l.secret, nil
			}
		}
	}
	return "", "", nil
}

// CA gives the certificates that a host's must be signed by; nil means those
// of the system.
func (c Config) CA(host string) (*x509.CertPool, error) {
	if h, ok := c.host(host); ok && h.CA != "" {
		return h.ca()
	}
	return nil, nil
}

func (c Config) host(name string) (Host, bool) {
	want, err := hostKey(name)
	if err != nil {
		return Host{}, false
	}
	for name, h := range c.Hosts {
		if key, err := hostKey(name); err == nil && key == want {
			return h, true
		}
	}
	return Host{}, false
}

// hostKey brings the spellings of one host together: case, the usual port, and
// the names of Docker's registry.
func hostKey(name string) (string, error) {
	name = strings.TrimSuffix(strings.ToLower(name), ":443")
	ref, err := daeploy.ParseImageRef(name + "/any/image")
	if err != nil || ref.Repository() != ref.Host()+"/any/image" {
		return "", errors.New("is no name of a registry, such as registry.example.org or 192.0.2.1:5000")
	}
	return ref.Host(), nil
}

func (h Host) password() (string, error) {
	text, err := ReadSecret(h.PasswordFile)
	if err != nil {
		return "", err
	}
	password := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	if password == "" || strings.ContainsFunc(password, forbidden) {
		return "", fmt.Errorf("%s does not hold one line with a password", h.PasswordFile)
	}
	return password, nil
}

func (h Host) ca() (*x509.CertPool, error) {
	if !filepath.IsAbs(h.CA) {
		return nil, fmt.Errorf("ca %q is not an absolute path", h.CA)
	}
	text, err := readFile(h.CA, func(os.FileInfo) error { return nil })
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", h.CA)
	}
	return pool, nil
}

func forbidden(r rune) bool { return r < ' ' || r == 0x7f }
