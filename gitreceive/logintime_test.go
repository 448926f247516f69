package gitreceive_test

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"
)

// TestLoginDelays: a client that has Nagle's algorithm on (RFC 896), as OpenSSH until a
// session begins, holds a small packet back until the one before is acknowledged, and
// a kernel may take 40 ms over that (Linux; RFC 1122, 4.2.3.2: up to 500). The server
// does not make it wait: no login is without such a delay by luck, since each has two.
func TestLoginDelays(t *testing.T) {
	const delay, tries = 40 * time.Millisecond, 50
	h := start(t)
	anna := h.admin()
	var fastest time.Duration
	for n := 0; n < tries && (n == 0 || fastest > delay); n++ {
		raw := h.raw()
		must(t, raw.(*net.TCPConn).SetNoDelay(false))
		began := time.Now()
		c, err := anna.dialOn(raw, gossh.Config{})
		took := time.Since(began)
		must(t, err)
		c.Close()
		fastest = min(cmp.Or(fastest, took), took)
	}
	if fastest > delay {
		t.Errorf("the fastest of %d logins took %v", tries, fastest)
	}
}

// F47: how long a login takes that fails tells nothing about a user name. Others use
// the CPU too, so that the fastest of many counts: with more tries it comes near to
// what the server takes, and a difference that is the server's would stay.
func TestLoginTimes(t *testing.T) {
	const most, tries = 1.25, 600
	h := start(t)
	h.admin()
	eve := h.person("eve", nil)
	names := []string{"anna", "daeploy", "root", "nobody-at-all", strings.Repeat("x", 200), ""}
	fastest := map[string]time.Duration{}
	factor := 0.0
	n := 0
	for ; n < tries && (n < 20 || factor > most); n++ {
		for _, name := range names {
			began := time.Now()
			c, err := gossh.Dial("tcp", h.addr, &gossh.ClientConfig{
				User: name, Auth: []gossh.AuthMethod{gossh.PublicKeys(eve.signer)}, HostKeyCallback: gossh.InsecureIgnoreHostKey(),
			})
			took := time.Since(began)
			if err == nil {
				c.Close()
				t.Fatalf("user %q logs in with a key that nobody has added", name)
			}
			if !strings.Contains(err.Error(), "unable to authenticate") {
				t.Fatalf("user %q: %v", name, err)
			}
			fastest[name] = min(cmp.Or(fastest[name], took), took)
		}
		times := slices.Sorted(maps.Values(fastest))
		factor = float64(times[len(times)-1]) / float64(times[0])
	}
	if factor > most {
		t.Errorf("of %d logins each, the fastest differ by a factor of %.2f: %v", n, factor, fastest)
	}
	times := slices.Sorted(maps.Values(fastest))
	t.Attr("F47", fmt.Sprintf("failed logins with %d user names, in turn, %d of each: the fastest of each took %.2f to %.2f ms", len(names), n, times[0].Seconds()*1000, times[len(times)-1].Seconds()*1000))
}
