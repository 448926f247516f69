package main

import (
	"log/slog"
	"path/filepath"
	"strings"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/gitreceive"
)

// sshConfig says who may log in besides the keys that were added, and bounds what
// a connection may do.
type sshConfig struct {
	TrustedUserCAKeys string `toml:"trusted_user_ca_keys"` // path: public keys of CAs, one a line
	RevokedKeys       string `toml:"revoked_keys"`         // path: what of their certificates is revoked

	MaxUnproven     int      `toml:"max_unproven"`
	MaxPerSource    int      `toml:"max_per_source"`
	MaxSessions     int      `toml:"max_sessions"`
	LoginTimeout    duration `toml:"login_timeout"`
	IdleTimeout     duration `toml:"idle_timeout"`
	Keepalive       duration `toml:"keepalive"`
	KeepaliveMisses int      `toml:"keepalive_misses"`
	StallTimeout    duration `toml:"stall_timeout"`

	Penalties penaltyConfig `toml:"penalties"`
}

func (c *config) checkSSH() error {
	for key, path := range map[string]string{"ssh.trusted_user_ca_keys": c.SSH.TrustedUserCAKeys, "ssh.revoked_keys": c.SSH.RevokedKeys} {
		if path != "" && !filepath.IsAbs(path) {
			return badValue(key, "is not an absolute path")
		}
	}
	if c.SSH.RevokedKeys != "" && c.SSH.TrustedUserCAKeys == "" {
		return badValue("ssh.revoked_keys", "is about certificates, and ssh.trusted_user_ca_keys is not set; a key that was added is shut out by keys remove")
	}
	if _, err := c.authorities(slog.New(slog.DiscardHandler)); err != nil {
		told := daeploy.Public(err, "")
		key, problem, _ := strings.Cut(told.Message, " ")
		fault := badValue(key, problem)
		fault.Hint = told.Hint
		return fault
	}
	return nil
}

// authorities are the CAs whose certificates log in, perhaps none.
func (c *config) authorities(log *slog.Logger) (*gitreceive.Authorities, error) {
	return gitreceive.OpenAuthorities(c.SSH.TrustedUserCAKeys, c.SSH.RevokedKeys, log)
}
