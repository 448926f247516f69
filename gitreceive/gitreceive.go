// Package gitreceive is the front of the daemon: an SSH server that knows who
// may push, git receive-pack and upload-pack behind it, the bare repositories
// and the reading of what they hold.
//
// A push passes through these hands, in this order:
//
//	door        accepts connections, counts them, limits their time
//	connection  SSH handshake, keepalive, which sessions it may open
//	session     request filter, exec line, who asks, exit status
//	receiving   git receive-pack as a child; a tap reads what passes by
//	conversation  the proc-receive hook's commands, our answers, the log
//	Pushes      decides; moves refs through Repositories
//
// The real git writes packs and refs; go-git only reads, and leaves to git what
// rests on something large. Nothing a client sends reaches a shell, and only a
// parsed app name reaches git's arguments.
package gitreceive

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/daeploy/daeploy"
)

// ErrGone is the cause with which a session's context ends when its client has
// left.
var ErrGone = errors.New("the client has left")

// Keyring tells the current rights of a key. It is asked at login, at each
// command, and again when a push has arrived (F50), by many goroutines.
type Keyring interface {
	Key(id daeploy.KeyID) (daeploy.Key, bool)
}

// Apps are the records of apps. CreateApp of one that exists is an error or
// returns it; both are fine. A missing app is an error of kind NotFound.
type Apps interface {
	App(name daeploy.AppName) (daeploy.App, error)
	CreateApp(name daeploy.AppName) (daeploy.App, error)
}

// Pushes decides about pushes. All methods are called by many goroutines.
type Pushes interface {
	// Ready is asked before git is started for a push; its error refuses the
	// push before anything is stored (F104).
	Ready(ctx context.Context) error

	// Receive is called once per push, when the objects are in the repository.
	// Lines for the pusher go to log: clean, each ended by a line feed. It
	// returns one error per command of p, in order; nil means that it has moved
	// the ref. When ctx ends, with cause ErrGone or daeploy.ErrShutdown, it
	// returns soon; what it began may go on without the pusher (F6).
	Receive(ctx context.Context, p daeploy.Push, log io.Writer) []error

	// Crowded tells that a push was refused because the app's repository is above
	// its cap, and nobody is in it now: it wants upkeep. It returns at once.
	Crowded(app daeploy.AppName)
}

// Commands runs everything that is not git. Exec returns the exit status; ctx
// ends as it does for Pushes.Receive.
type Commands interface {
	Exec(ctx context.Context, e Exec) int
}

// Exec is one command line of a proven actor.
type Exec struct {
	Actor          daeploy.Actor
	Words          []string // never empty; "help" if the client asked for a shell
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Terminal       *Terminal // only for the command run, and only if the client asked
}

// Events is the audit trail. Tell keeps an event, and writes it to the
// operator's log; it does not wait for the disk where a stranger is behind it.
// It is called by many goroutines.
type Events interface {
	Tell(daeploy.Event)
}

// Config says where a Server keeps things and whom it asks.
type Config struct {
	StateDir     string        // holds the host key and the hook
	Listener     net.Listener  // the SSH door; may be nil
	Local        net.Listener  // the host's own door, a unix socket; may be nil
	Repositories *Repositories // where pushes go
	Keys         Keyring
	Authorities  *Authorities // nil: nobody logs in by a certificate
	Penalties    *Penalties   // nil: nobody is refused for what came before
	Apps         Apps
	Pushes       Pushes
	Commands     Commands
	Events       Events
	Log          *slog.Logger
	Limits       Limits // zero fields mean the defaults
}

// Server serves both doors.
type Server struct {
	config    Config
	limits    Limits
	hooks     string
	receives  *slots
	fetches   *slots
	execs     *slots
	admission *admission
	penalized atomic.Uint64 // connections that were refused for what came before them
	claiming  sync.Mutex    // held while an app is made by its first push

	ready chan struct{} // closed once every door accepts

	mu       sync.Mutex
	open     map[*door]time.Time // those that accept, and since when they look at one connection; zero while they wait
	refusals map[string]uint64
	conns    map[*connection]struct{}
	sessions sync.WaitGroup // guarded by mu against Add after closed
	arriving sync.WaitGroup // see arrived
	stopping bool           // those who are here are told to leave
	closed   bool           // nobody may begin anything
}

// New checks the configuration and touches nothing.
func New(c Config) (*Server, error) {
	if c.StateDir == "" || c.Repositories == nil || c.Keys == nil || c.Apps == nil ||
		c.Pushes == nil || c.Commands == nil || c.Events == nil || c.Log == nil {
		return nil, daeploy.Errorf(daeploy.Config, "config_invalid", "gitreceive.Config is not complete")
	}
	limits := c.Limits.orDefaults()
	c.Repositories.most.Store(limits.RepositoryBytes)
	c.Repositories.reading.Store(&limits)
	return &Server{
		ready:     make(chan struct{}),
		config:    c,
		limits:    limits,
		hooks:     filepath.Join(c.StateDir, "hooks"),
		receives:  newSlots(limits.Receives, limits.ReceivesPerKey),
		fetches:   newSlots(limits.Receives, limits.ReceivesPerKey),
		execs:     newSlots(limits.Execs, limits.ExecsPerKey),
		admission: newAdmission(limits),
		open:      map[*door]time.Time{},
		refusals:  map[string]uint64{},
		conns:     map[*connection]struct{}{},
	}, nil
}

// Run loads the host key, writes the hook, sweeps the repositories and serves
// until ctx ends. Then it accepts nobody any more, and every session's context
// ends with daeploy.ErrShutdown, so that commands and pushes say their farewell; a
// push that is just coming in may come to rest first. Within five seconds all
// connections are closed. It returns nil after such an end.
func (s *Server) Run(ctx context.Context) error {
	host, err := OpenHostKey(s.config.StateDir)
	if err != nil {
		return err
	}
	if err := writeHook(s.hooks); err != nil {
		return daeploy.Public(err, "writing git's hook")
	}
	if err := s.sweepAtStart(ctx); err != nil {
		return daeploy.Public(err, "sweeping the repositories")
	}
	group, ctx := errgroup.WithContext(ctx)
	var accepting sync.WaitGroup
	for _, d := range s.doors(host) {
		accepting.Add(1)
		group.Go(func() error {
			defer accepting.Done()
			return d.serve(ctx)
		})
	}
	group.Go(func() error {
		<-ctx.Done()
		accepting.Wait()
		s.stop()
		return nil
	})
	return group.Wait()
}

func (s *Server) doors(host *HostKey) []*door {
	var all []*door
	if s.config.Listener != nil {
		all = append(all, &door{server: s, listener: s.config.Listener, host: host, admission: s.admission})
	}
	if s.config.Local != nil {
		all = append(all, &door{server: s, listener: s.config.Local, host: host, local: true})
	}
	return all
}

// sweepAtStart removes what a killed daemon left: files of unfinished pushes,
// and repositories of first pushes that brought nothing (F1, F38).
func (s *Server) sweepAtStart(ctx context.Context) error {
	apps, err := s.config.Repositories.Sweep(ctx)
	if err != nil {
		return err
	}
	for _, app := range apps {
		if err := s.removeUnclaimed(ctx, app); err != nil {
			return err
		}
	}
	return nil
}

// removeUnclaimed removes a repository without record and without refs, unless
// a push to it is open: then that one's end does it.
func (s *Server) removeUnclaimed(ctx context.Context, app daeploy.AppName) error {
	if _, err := s.config.Apps.App(app); daeploy.KindOf(err) != daeploy.NotFound {
		return err
	}
	return s.config.Repositories.removeEmpty(ctx, app, func() bool {
		_, err := s.config.Apps.App(app)
		return daeploy.KindOf(err) == daeploy.NotFound
	})
}
