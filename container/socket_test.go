package container_test

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container"
)

// TestDyingSocket: F104. A containerd that is killed while somebody greets it hangs up,
// as a stranger does; but then it is gone, or there anew, and no fault of the
// configuration.
func TestDyingSocket(t *testing.T) {
	const settings = "\x00\x00\x00\x04\x00\x00\x00\x00\x00" // how a server of HTTP/2 begins
	for name, test := range map[string]struct {
		hangups int
		then    string // what it says to the next one; "" if it is gone by then
		want    daeploy.Kind
	}{
		"gone then":      {hangups: 1, want: daeploy.Unavailable},
		"there again":    {hangups: 1, then: settings, want: daeploy.Unavailable},
		"dies twice":     {hangups: 2, then: settings, want: daeploy.Unavailable},
		"hangs up again": {hangups: 3, then: settings, want: daeploy.Config},
	} {
		t.Run(name, func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "socket")
			l, err := net.Listen("unix", socket)
			must(t, err)
			over := make(chan struct{})
			go func() {
				defer close(over)
				defer l.Close()
				for met := 1; met <= test.hangups || test.then != ""; met++ {
					conn, err := l.Accept()
					if err != nil {
						return // the test has ended
					}
					if met > test.hangups {
						_, err := io.WriteString(conn, test.then)
						_, rerr := io.Copy(io.Discard, conn) // until the other side closes
						if errors.Join(err, rerr) != nil {
							t.Error(errors.Join(err, rerr))
						}
					}
					if met == test.hangups && test.then == "" {
						l.Close() // before the other side can come again
					}
					conn.Close()
				}
			}()
			err = container.Explain(t.Context(), socket, errors.New("it went away"))
			if daeploy.KindOf(err) != test.want {
				t.Errorf("%v, want kind %d", err, test.want)
			}
			l.Close()
			<-over
		})
	}
	t.Attr("F104", "containerd that hangs up once or twice, as one that is killed just now: away; a stranger only if it does so a third time")
}
