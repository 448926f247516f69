package main

import (
	"fmt"
	"time"

	"github.com/daeploy/daeploy/gitreceive"
)

// receiveConfig bounds what is pushed and fetched.
type receiveConfig struct {
	AllowDelete bool `toml:"allow_delete"`
	AllowForce  bool `toml:"allow_force"`

	AtOnce       int      `toml:"at_once"`
	AtOncePerKey int      `toml:"at_once_per_key"`
	RefsPerPush  int      `toml:"refs_per_push"`
	Refs         int      `toml:"refs"`
	Pack         bytes    `toml:"pack"`
	Objects      int64    `toml:"objects"`
	Object       bytes    `toml:"object"`
	Repository   bytes    `toml:"repository"`
	Memory       bytes    `toml:"memory"`
	CPU          duration `toml:"cpu"`
	Silence      duration `toml:"silence"`
	Timeout      duration `toml:"timeout"`
}

func receiveOf(l gitreceive.Limits) receiveConfig {
	return receiveConfig{
		AllowForce: true,
		AtOnce:     l.Receives, AtOncePerKey: l.ReceivesPerKey, RefsPerPush: l.Commands, Refs: l.Refs,
		Pack: bytes(l.PackBytes), Objects: l.Objects, Object: bytes(l.ObjectBytes), Repository: bytes(l.RepositoryBytes),
		Memory: bytes(l.Memory), CPU: duration(l.CPU), Silence: duration(l.Silence), Timeout: duration(l.Receive),
	}
}

// sshOf is the SSH door with the limits of l, and no CA.
func sshOf(l gitreceive.Limits) sshConfig {
	return sshConfig{
		MaxUnproven: l.UnauthFull, MaxPerSource: l.PerSource, MaxSessions: l.Channels, LoginTimeout: duration(l.Login),
		IdleTimeout: duration(l.NoSession), Keepalive: duration(l.Keepalive), KeepaliveMisses: l.Misses, StallTimeout: duration(l.Stall),
		Penalties: penaltiesOf(gitreceive.DefaultPenalties()),
	}
}

// frontLimits are those of connections and pushes.
func (c *config) frontLimits() gitreceive.Limits {
	s, r := c.SSH, c.Receive
	return gitreceive.Limits{
		UnauthStart: max(1, s.MaxUnproven/10), UnauthFull: s.MaxUnproven, PerSource: s.MaxPerSource, Channels: s.MaxSessions,
		Login: time.Duration(s.LoginTimeout), NoSession: time.Duration(s.IdleTimeout),
		Keepalive: time.Duration(s.Keepalive), Misses: s.KeepaliveMisses, Stall: time.Duration(s.StallTimeout),
		Receives: r.AtOnce, ReceivesPerKey: r.AtOncePerKey, Commands: r.RefsPerPush, Refs: r.Refs,
		PackBytes: int64(r.Pack), Objects: r.Objects, ObjectBytes: int64(r.Object), RepositoryBytes: int64(r.Repository),
		Memory: int64(r.Memory), CPU: time.Duration(r.CPU), Silence: time.Duration(r.Silence), Receive: time.Duration(r.Timeout),
	}
}

func (c *config) checkFrontLimits() error {
	s, r := c.SSH, c.Receive
	for _, n := range []struct {
		key          string
		value, least int64
	}{
		{"ssh.max_unproven", int64(s.MaxUnproven), 1},
		{"ssh.max_per_source", int64(s.MaxPerSource), 1},
		{"ssh.max_sessions", int64(s.MaxSessions), 1},
		{"ssh.keepalive_misses", int64(s.KeepaliveMisses), 1},
		{"receive.at_once", int64(r.AtOnce), 1},
		{"receive.at_once_per_key", int64(r.AtOncePerKey), 1},
		{"receive.refs_per_push", int64(r.RefsPerPush), 1},
		{"receive.refs", int64(r.Refs), 1},
		{"receive.objects", r.Objects, 1},
		{"receive.pack", int64(r.Pack), 1},
		{"receive.object", int64(r.Object), 1},
		{"receive.repository", int64(r.Repository), 1},
	} {
		if n.value < n.least {
			return badValue(n.key, fmt.Sprintf("must be at least %d", n.least))
		}
	}
	for key, d := range map[string]duration{
		"ssh.login_timeout": s.LoginTimeout, "ssh.idle_timeout": s.IdleTimeout, "ssh.keepalive": s.Keepalive, "ssh.stall_timeout": s.StallTimeout,
		"receive.cpu": r.CPU, "receive.silence": r.Silence, "receive.timeout": r.Timeout,
	} {
		if time.Duration(d) < time.Second {
			return badValue(key, "must be at least 1s")
		}
	}
	if r.Memory < leastMemory {
		return badValue("receive.memory", "must be at least 64MiB")
	}
	return nil
}

// leastMemory is what git needs for any push.
const leastMemory = 64 << 20
