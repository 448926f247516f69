package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/systemd"
)

// doors are the two ways in, and the window: metrics is nil if it is off.
type doors struct {
	ssh, local, metrics net.Listener
}

// openDoors takes the sockets that systemd opened, or opens them.
func openDoors(ctx context.Context, c config, log *slog.Logger) (d doors, err error) {
	given, err := systemd.Listeners()
	if err != nil {
		return d, err
	}
	if given == (systemd.Sockets{}) && underUnit() {
		if err := openUnit(ctx, log); err != nil {
			return d, err
		}
	}
	if d.ssh = given.SSH; d.ssh == nil {
		if d.ssh, err = listenTCP("ssh_addr", c.SSHAddr); err != nil {
			return d, err
		}
	}
	if d.local = given.Local; d.local == nil {
		if d.local, err = listenLocal(c.Socket); err != nil {
			d.ssh.Close()
			return d, err
		}
	}
	if c.MetricsAddr != "" {
		if d.metrics, err = listenTCP("metrics_addr", c.MetricsAddr); err != nil {
			d.close()
			return d, err
		}
	}
	return d, nil
}

// attrs say in the line "ready" where the doors are.
func (d doors) attrs(socket string) []any {
	all := []any{"ssh", d.ssh.Addr().String(), "socket", socket}
	if d.metrics != nil {
		all = append(all, "metrics", d.metrics.Addr().String())
	}
	return all
}

func (d doors) close() {
	d.ssh.Close()
	d.local.Close()
	if d.metrics != nil {
		d.metrics.Close()
	}
}

func listenTCP(key, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, listenError(key, address, err)
	}
	return l, nil
}

// checkupDoors tries the doors of a daemon that is away. byUnit is whether its units
// are to start it: then daeploy.socket, if there is one, says where the first is.
func checkupDoors(ctx context.Context, c *config, byUnit bool) daeploy.Finding {
	const check = "doors"
	addresses := map[string]string{"ssh_addr": c.SSHAddr, "metrics_addr": c.MetricsAddr}
	var said []string
	if byUnit {
		unit, err := systemd.AskDoors(ctx)
		if err != nil {
			return daeploy.Fault(check, err)
		}
		if unit.Known {
			addresses["ssh_addr"] = ""
			state := "held by systemd for daeploy.socket: "
			if !unit.Open {
				state = "free for daeploy.socket: "
				if err := shut(unit); err != nil {
					return daeploy.Fault(check, err)
				}
			}
			said = append(said, state+cmp.Or(strings.Join(unit.TCP, ", "), "no port"))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(addresses)) {
		if addresses[key] == "" {
			continue
		}
		l, err := listenTCP(key, addresses[key])
		if err != nil {
			return daeploy.Fault(check, err)
		}
		l.Close()
		said = append(said, "free: "+key+" "+addresses[key])
	}
	return daeploy.Fine(check, strings.Join(said, "; "))
}

// listenLocal opens the unix socket: mode 0660, group daeploy if there is one.
// A stale file of a dead daemon is replaced; one that answers is not (F134).
func listenLocal(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, listenError("socket", path, err)
	}
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		return nil, &daeploy.Error{
			Kind: daeploy.TryAgain, Code: "socket_taken", Message: "another daemon answers at " + path,
			Hint: "stop it, or choose another --socket",
		}
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSocket != 0 {
		if err := os.Remove(path); err != nil {
			return nil, listenError("socket", path, err)
		}
	}
	old := syscall.Umask(0o117)
	l, err := net.Listen("unix", path)
	syscall.Umask(old)
	if err != nil {
		return nil, listenError("socket", path, err)
	}
	if g, err := user.LookupGroup("daeploy"); err == nil {
		gid, err := strconv.Atoi(g.Gid)
		if err = errors.Join(err, os.Chown(path, -1, gid)); err != nil {
			l.Close()
			return nil, listenError("socket", path, err)
		}
	}
	return l, nil
}

func listenError(key, address string, err error) error {
	e := &daeploy.Error{
		Kind: daeploy.Config, Code: "listen_failed", Message: fmt.Sprintf("%s %s cannot be opened", key, address),
		Hint: "choose another, or make its directory", Err: err,
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		e.Message, e.Hint = fmt.Sprintf("%s %s is taken by another program", key, address), "find it:  ss -ltnp, or choose another address"
	}
	return e
}

// publicURL is what pushers call this host.
func (c *config) publicURL(ssh net.Listener) string {
	address := c.PublicAddress
	if address == "" {
		name, err := os.Hostname()
		if err != nil {
			return ""
		}
		_, port, err := net.SplitHostPort(ssh.Addr().String())
		if err != nil {
			return ""
		}
		address = net.JoinHostPort(name, port)
	}
	return "ssh://daeploy@" + strings.TrimSuffix(address, ":22")
}

// cloneURL is publicURL where the operator has named it: what goes into images
// must not hang on the name that a host happens to have.
func (c *config) cloneURL(ssh net.Listener) string {
	if c.PublicAddress == "" {
		return ""
	}
	return c.publicURL(ssh)
}
