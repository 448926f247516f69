package test_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/daeploy/daeploy/gitreceive/remotetest"
)

// githost is a server of git repositories that can hold back its answers.
type githost struct {
	*remotetest.Server
	held    chan struct{} // closed when nothing is held any more; nil from the start
	waiting chan struct{} // has one for each request that waits
}

// doGithost is the word "githost" of stories:
//
//	githost start     serves the bare repositories in githost/ over https; $GITHOST
//	                  is its host, githost.pem its authority
//	githost hold      answers nothing from now on
//	githost asked     waits until somebody waits for an answer
//	githost release   answers
//	githost stop
func (t *teller) doGithost(args []string) error {
	switch args[0] {
	case "start":
		return t.startGithost()
	case "hold":
		t.githost.hold()
	case "asked":
		select {
		case <-t.githost.waiting:
		case <-time.After(20 * time.Second):
			return errors.New("nobody has asked within 20 seconds")
		}
	case "release":
		close(t.githost.held)
	case "stop":
		t.githost.Close()
	default:
		return fmt.Errorf("githost %s?", args[0])
	}
	return nil
}

func (t *teller) startGithost() error {
	if err := os.MkdirAll(t.path("githost"), 0o755); err != nil {
		return err
	}
	server, err := remotetest.New(t.path("githost"), t.path("githost.pem"))
	if err != nil {
		return err
	}
	t.githost = &githost{Server: server, waiting: make(chan struct{}, 100)}
	t.ts.Setenv("GITHOST", server.Host)
	return nil
}

func (g *githost) hold() {
	held := make(chan struct{})
	g.held = held
	g.SetBefore(func(_ http.ResponseWriter, r *http.Request) bool {
		select {
		case <-held:
			return false
		default:
		}
		g.waiting <- struct{}{}
		select {
		case <-held:
			return false
		case <-r.Context().Done():
			return true
		}
	})
}
