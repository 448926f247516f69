package metrics

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"

	"github.com/daeploy/daeploy"
)

// What readers may cost. None of them is known.
const (
	maxConnections = 64
	maxReadings    = 4 // of /metrics, at once
	maxHeader      = 64 << 10
	maxBody        = 4 << 10
)

// Config says what is shown, and where. All but the last field must be set.
type Config struct {
	Listener net.Listener // Run closes it
	Version  string
	Queue    Queue
	Doors    Doors
	Records  Records
	Disks    Disks
	Webhooks Webhooks
	Events   Events
	After    uint64  // events up to this place are not counted
	Live     []Check // what /livez asks
	Ready    []Check // what /readyz asks
	Log      *slog.Logger

	Patience time.Duration // for a request, and again for its answer; 0 = 10 s
}

// Server answers over HTTP.
type Server struct {
	config Config
	live   checks
	ready  checks
	tally  *tally
	all    *prometheus.Registry
}

// New checks the configuration and touches nothing.
func New(c Config) (*Server, error) {
	if c.Listener == nil || c.Queue == nil || c.Doors == nil || c.Records == nil || c.Disks == nil || c.Webhooks == nil || c.Events == nil || c.Log == nil {
		return nil, errors.New("metrics: Config is not complete")
	}
	c.Patience = cmp.Or(c.Patience, 10*time.Second)
	s := &Server{config: c, live: newChecks(c.Live), ready: newChecks(c.Ready), all: prometheus.NewPedanticRegistry()}
	s.tally = newTally(s.all)
	s.all.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		newCollector(c, s.ready),
	)
	return s, nil
}

// Run answers until ctx ends; those who are being answered then get one second
// more. It returns nil after such an end.
func (s *Server) Run(ctx context.Context) error {
	server := s.server(ctx)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		err := server.Serve(netutil.LimitListener(s.config.Listener, maxConnections))
		if errors.Is(err, http.ErrServerClosed) {
			return nil
		}
		return err
	})
	group.Go(func() error { return s.count(ctx) })
	group.Go(func() error {
		<-ctx.Done()
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if server.Shutdown(last) != nil {
			_ = server.Close() // whoever is slower than that is cut off
		}
		return nil
	})
	return group.Wait()
}

// count follows the events until ctx ends. A database that is in trouble stops
// the counting, not the daemon; what happened meanwhile is counted later.
func (s *Server) count(ctx context.Context) error {
	if apps, err := s.config.Events.Apps(); err != nil {
		s.config.Log.Warn("apps cannot be listed for metrics", "err", err)
	} else {
		s.tally.begin(apps)
	}
	for after := s.config.After; ; {
		events, next, err := s.config.Events.NextEvents(ctx, daeploy.EventFilter{After: after})
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			s.config.Log.Warn("events cannot be read for metrics", "err", err)
			select {
			case <-time.After(s.config.Patience):
			case <-ctx.Done():
			}
			continue
		}
		for _, e := range events {
			if err := s.tally.happened(e, s.config.Events.Build); err != nil {
				s.config.Log.Warn("a build cannot be read for metrics", "build", e.Build, "err", err)
			}
		}
		after = next
	}
}

// server has all of net/http's time limits, which by default are none.
func (s *Server) server(ctx context.Context) *http.Server {
	patience := s.config.Patience
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler:           http.MaxBytesHandler(s.routes(), maxBody),
		Protocols:         protocols,
		ReadHeaderTimeout: patience, ReadTimeout: patience, WriteTimeout: 2 * patience, IdleTimeout: 6 * patience,
		MaxHeaderBytes: maxHeader,
		BaseContext:    func(net.Listener) context.Context { return ctx },
		ErrorLog:       slog.NewLogLogger(s.config.Log.Handler(), slog.LevelDebug), // strangers' doing
	}
}

// routes take GET and HEAD; the mux refuses all else with 405.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.InstrumentMetricHandler(s.all, promhttp.HandlerFor(s.all, promhttp.HandlerOpts{
		ErrorLog: unread{s.config.Log}, ErrorHandling: promhttp.ContinueOnError, Registry: s.all,
		MaxRequestsInFlight: maxReadings, Timeout: s.config.Patience,
	})))
	mux.HandleFunc("GET /livez", s.live.answer)
	mux.HandleFunc("GET /readyz", s.ready.answer)
	return mux
}

// unread is the log of numbers that could not be had.
type unread struct{ log *slog.Logger }

// Println is promhttp's way to tell.
func (u unread) Println(words ...any) {
	for _, w := range words {
		if err, ok := w.(error); ok {
			u.log.Warn("some metrics cannot be read", "err", err)
		}
	}
}
