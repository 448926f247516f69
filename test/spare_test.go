package test_test

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"time"
)

var upperDir = regexp.MustCompile(`(/\S+)/fs\b`)

// laid waits until the app's source is laid out for its next build, and gives the
// directory in which it is.
func (s *story) laid(app string) (dir string, err error) {
	err = within(time.Minute, func() error {
		out, err := s.ctr("snapshots", "mounts", "/nowhere", "daeploy-"+app+".spare")
		if err != nil {
			return err
		}
		m := upperDir.FindString(out)
		if m == "" {
			return fmt.Errorf("no directory in %q", out)
		}
		_, err = os.Stat(m + "/note")
		dir = m
		return err
	})
	return dir, err
}

// doLaidNow does not wait.
func (t *teller) doLaidNow(args []string) error {
	_, err := t.ctr("snapshots", "mounts", "/nowhere", "daeploy-"+args[0]+".spare")
	return err
}

func (t *teller) doLaid(args []string) error {
	if len(args) != 1 {
		return errors.New("laid APP")
	}
	_, err := t.laid(args[0])
	return err
}
