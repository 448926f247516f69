// Package remotetest serves git repositories over https with a certificate
// that nobody else trusts, by git's own http-backend.
package remotetest

import (
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
)

// Server serves the bare repositories below a directory.
type Server struct {
	Host     string // host:port
	CA       string // path of the PEM file of its authority
	Requests atomic.Int64

	before atomic.Pointer[func(http.ResponseWriter, *http.Request) bool]
	web    *httptest.Server
}

// New starts a server that is to be closed. Its certificate is written into ca.
func New(root, ca string) (*Server, error) {
	where, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		return nil, fmt.Errorf("find git's programs: %w", err)
	}
	silent := log.New(io.Discard, "", 0)
	backend := &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(where)), "git-http-backend"), Dir: root,
		Stderr: io.Discard, Logger: silent, // tests break off, and ask for what is not there
		Env: []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1", "HOME=/nonexistent"},
	}
	s := &Server{CA: ca}
	s.web = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.Requests.Add(1)
		if before := s.before.Load(); before == nil || !(*before)(w, r) {
			backend.ServeHTTP(w, r)
		}
	}))
	s.web.Config.ErrorLog = silent
	s.web.StartTLS()
	s.Host = s.web.Listener.Addr().String()
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.web.Certificate().Raw})
	return s, os.WriteFile(ca, text, 0o600)
}

// SetBefore lets a function answer in the server's place: it has if it is true.
func (s *Server) SetBefore(before func(http.ResponseWriter, *http.Request) bool) {
	s.before.Store(&before)
}

// URL is a repository's address.
func (s *Server) URL(name string) string { return "https://" + s.Host + "/" + name }

// Close ends the server, and what goes on there.
func (s *Server) Close() {
	s.web.CloseClientConnections()
	s.web.Close()
}
