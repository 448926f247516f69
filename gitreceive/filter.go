package gitreceive

import (
	"encoding/binary"
	"regexp"
	"time"

	gossh "golang.org/x/crypto/ssh"
)

// Bounds of what a session may send before its command.
const (
	maxEnv    = 32      // variables
	maxEnvLen = 4 << 10 // bytes of one, its name included
)

// filteredChannel is a session channel whose requests were looked at: only
// exec and shell get through to the library (F53, F58).
type filteredChannel struct {
	gossh.NewChannel
	session *session
	started func() // called before exec or shell is passed on
}

// Accept opens the channel.
func (f *filteredChannel) Accept() (gossh.Channel, <-chan *gossh.Request, error) {
	ch, in, err := f.NewChannel.Accept()
	if err != nil {
		return nil, nil, err
	}
	early := newEarlyChannel(ch, f.session.tooEarly)
	go func() {
		defer f.session.conn.recovered("stdin")
		early.pump()
	}()
	out := make(chan *gossh.Request)
	go func() {
		defer close(out)
		defer f.session.conn.recovered("request")
		for req := range in {
			pass, ok := f.session.request(req)
			if pass {
				f.started()
				out <- req
				continue
			}
			_ = req.Reply(ok, nil) // fails only if the client is gone
		}
	}()
	return early, out, nil
}

// tooEarly is asked when a client has sent much, and nobody reads. A command that reads
// nothing leaves it where it is, and each key has few of them; who has asked for
// nothing, or for a push or a fetch that waits for long, is no git and no ssh.
func (s *session) tooEarly(read <-chan struct{}) (more bool) {
	s.mu.Lock()
	asked := s.asked
	s.mu.Unlock()
	if asked {
		select {
		case <-s.parsed:
		case <-s.ended:
		}
		if !s.git.Load() {
			return false
		}
		select {
		case <-read:
			return false
		case <-s.ended:
		case <-time.After(s.conn.server.limits.Early):
		}
	}
	s.conn.close()
	return true
}

// request decides about one request: pass it on, or answer it with ok.
func (s *session) request(req *gossh.Request) (pass, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch req.Type {
	case "exec", "shell":
		if !s.asked {
			s.asked = true
			if req.Type == "shell" || len(req.Payload) > maxExec+4 {
				s.tooLong = req.Type == "exec"
				req.Payload = gossh.Marshal(struct{ Line string }{})
			}
			return true, true
		}
	case "env":
		if s.env++; s.env <= maxEnv && len(req.Payload) <= maxEnvLen {
			return false, s.setEnv(req.Payload)
		}
	case "pty-req":
		if !s.asked && s.terminal == nil {
			if s.terminal = parseTerminal(req.Payload); s.terminal != nil {
				return false, true
			}
		}
	case "window-change":
		const words = 4 // RFC 4254, section 6.7
		if s.terminal != nil && len(req.Payload) == 4*words {
			s.terminal.resize(parseSize(req.Payload))
			return false, true
		}
	}
	s.conn.excess()
	return false, false
}

var gitProtocol = regexp.MustCompile(`^version=[012]$`)

// setEnv keeps the one variable that means anything here; it reaches git's
// environment, so its form is exact (F44). The rest is dropped: OpenSSH sends
// LANG and the like unasked.
func (s *session) setEnv(payload []byte) bool {
	var kv struct{ Name, Value string }
	if err := gossh.Unmarshal(payload, &kv); err != nil {
		return false
	}
	if kv.Name != "GIT_PROTOCOL" || !gitProtocol.MatchString(kv.Value) || s.asked {
		return false
	}
	s.protocol = kv.Value
	return true
}

// parseTerminal reads a pty-req (RFC 4254, 6.2); nil if it is malformed. The
// terminal modes are the client's own affair.
func parseTerminal(payload []byte) *Terminal {
	var req struct {
		Term                         string
		Columns, Rows, Width, Height uint32
		Modes                        string
	}
	if err := gossh.Unmarshal(payload, &req); err != nil || len(req.Term) > 64 || plain(req.Term, 64) != req.Term {
		return nil
	}
	return &Terminal{Term: req.Term, size: size(req.Columns, req.Rows), changed: make(chan struct{}, 1)}
}

// parseSize reads the first two words of a window-change.
func parseSize(payload []byte) Size {
	return size(binary.BigEndian.Uint32(payload), binary.BigEndian.Uint32(payload[4:]))
}

func size(columns, rows uint32) Size {
	return Size{Columns: int(min(columns, 10_000)), Rows: int(min(rows, 10_000))}
}
