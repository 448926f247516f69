package gitreceive

import (
	"io"
	"time"

	"github.com/daeploy/daeploy"
)

// stop ends all sessions, politely first. Nobody is accepted any more: who
// connects now waits at the socket for the next daemon, if systemd holds it. Who
// was let in before is served: half of the time of the farewell belongs to those
// that have not arrived.
func (s *Server) stop() {
	open := s.leave()
	arrived := make(chan struct{})
	go func() {
		s.arriving.Wait()
		close(arrived)
	}()
	settle := s.limits.Farewell / 2
	select {
	case <-arrived:
	case <-time.After(settle):
	}
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	for _, c := range open {
		c.cancel(daeploy.ErrShutdown)
	}
	done := make(chan struct{})
	go func() {
		s.sessions.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(s.limits.Farewell - settle):
	}
	for _, c := range open {
		c.close()
	}
	select {
	case <-done:
	case <-time.After(s.limits.Farewell / 4):
	}
}

// leave tells the sessions that have arrived to end, and gives all connections.
func (s *Server) leave() []*connection {
	s.mu.Lock()
	s.stopping = true
	open := make([]*connection, 0, len(s.conns))
	for c := range s.conns {
		open = append(open, c)
	}
	s.mu.Unlock()
	for _, c := range open {
		c.sessions.Range(func(key, _ any) bool {
			if one := key.(*session); one.here.Load() {
				one.cancel(daeploy.ErrShutdown)
			}
			return true
		})
	}
	return open
}

// commandTime is how long a command runs before it is taken for one that follows
// something, as logs -f does.
const commandTime = time.Second

// arrived says that a restart may end the session from now on without harm to
// what it is for. A push has arrived when Receive says its first word, for then
// its builds are recorded and the next daemon goes on with them; a fetch at its
// end; a command at its end, or when it has run for commandTime. A connection has
// arrived with its first session, or its end.
func (s *session) arrived() {
	s.arrival.Do(func() {
		s.here.Store(true)
		server := s.conn.server
		server.mu.Lock()
		stopping := server.stopping
		server.mu.Unlock()
		if stopping {
			s.cancel(daeploy.ErrShutdown)
		}
		server.arriving.Done()
	})
}

// begin counts a session in; false means that the server is stopping. While it
// does, a connection still has its first one.
func (s *Server) begin(c *connection) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.stopping && c.begun {
		return false
	}
	c.begun = true
	s.sessions.Add(1)
	s.arriving.Add(1)
	c.settled()
	return true
}

// forgo says that a connection that is closed has no first session to come: from
// now on it does not hold up a stop, and must not begin to.
func (s *Server) forgo(c *connection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.begun = true
}

// add registers a connection; false means that the server has stopped.
func (s *Server) add(c *connection) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.conns[c] = struct{}{}
	return true
}

func (s *Server) drop(c *connection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// firstWord calls first before the first byte is written.
type firstWord struct {
	io.Writer
	first func()
}

func (f firstWord) Write(p []byte) (int, error) {
	f.first()
	return f.Writer.Write(p)
}
