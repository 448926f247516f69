package main

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestStatusLine(t *testing.T) {
	for _, tt := range []struct {
		running, queued int
		draining        bool
		want            string
	}{
		{0, 0, false, "ready"},
		{2, 1, false, "ready, 2 building, 1 queued"},
		{0, 3, true, "draining, 0 building, 3 queued"},
		{0, 0, true, "draining"},
	} {
		if got := statusLine(tt.running, tt.queued, tt.draining); got != tt.want {
			t.Errorf("statusLine(%d, %d, %v) = %q; want %q", tt.running, tt.queued, tt.draining, got, tt.want)
		}
	}
}

// answer is a room that is asked whether it is well.
type answer func(ctx context.Context) error

func (a answer) Alive(ctx context.Context) error { return a(ctx) }
func (a answer) Check(ctx context.Context) error { return a(ctx) }

// front is one whose accept loop is at a connection for some time.
type front time.Duration

func (f front) Stuck(patience time.Duration) error {
	if time.Duration(f) > patience {
		return errors.New("the SSH door is stuck")
	}
	return nil
}

func well(context.Context) error { return nil }

func fails(context.Context) error { return errors.New("closed") }

func hangs(ctx context.Context) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

// TestAlive: F132. A database or an accept loop that hangs keeps the watchdog from
// its food, containerd does not, whether it is away or hangs.
func TestAlive(t *testing.T) {
	greets := func(l net.Listener) {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("SSH-2.0-x\r\n"))
			c.Close()
		}
	}
	silent := func(l net.Listener) {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
		}
	}
	for name, tt := range map[string]struct {
		records, containers answer
		door                func(net.Listener) // nil = an accept loop that is stuck
		front               front
		want                string // in the error; "" = it is alive
	}{
		"all is well":                    {well, well, greets, 0, ""},
		"a transaction hangs":            {hangs, well, greets, 0, "database: context deadline exceeded"},
		"the database is closed":         {fails, well, greets, 0, "database: closed"},
		"the accept loop is stuck":       {well, well, nil, 0, "local door: "},
		"the door takes in, and is mute": {well, well, silent, 0, "local door: "},
		"the SSH door is stuck":          {well, well, greets, front(time.Minute), "the SSH door is stuck"},
		"containerd is away":             {well, fails, greets, 0, ""},
		"containerd hangs":               {well, hangs, greets, 0, ""},
		"both hang":                      {hangs, hangs, greets, 0, "database: "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			door, err := net.Listen("unix", filepath.Join(t.TempDir(), "door"))
			if err != nil {
				t.Fatal(err)
			}
			defer door.Close()
			if tt.door != nil {
				go tt.door(door)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			err = alive{tt.records, tt.containers, door.Addr(), tt.front}.check(ctx)
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("it is found dead: %v", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("check: %v; want %q", err, tt.want)
			}
		})
	}
	t.Attr("F132", "database, accept loop and containerd asked, each well, failing and hanging: a database or a door that hangs is found dead, containerd never")
}
