package metrics_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.uber.org/goleak"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/metrics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rooms are the daemon as the tests would have it.
type rooms struct {
	running, waiting int
	oldest           time.Time
	traffic          metrics.Traffic
	refusals         map[string]uint64
	holdings         metrics.Holdings
	disks            []metrics.Disk
	broken           error // of Records and Disks
	apps             []daeploy.App
	hooks            []daeploy.Webhook

	mu     sync.Mutex
	events []daeploy.Event
	more   chan struct{} // closed when there are more events; nil while nobody waits
	builds map[daeploy.BuildID]daeploy.Build
	seen   uint64
}

func (r *rooms) Webhooks() ([]daeploy.Webhook, error) { return r.hooks, nil }

func (r *rooms) Apps() ([]daeploy.App, error) { return r.apps, nil }

func (r *rooms) Build(id daeploy.BuildID) (daeploy.Build, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b, ok := r.builds[id]; ok {
		return b, nil
	}
	return daeploy.Build{}, daeploy.Errorf(daeploy.NotFound, "build_not_found", "there is no build %s", id)
}

func (r *rooms) NextEvents(ctx context.Context, f daeploy.EventFilter) ([]daeploy.Event, uint64, error) {
	for {
		r.mu.Lock()
		r.seen = f.After
		list := r.events[f.After:]
		if r.more == nil {
			r.more = make(chan struct{})
		}
		more := r.more
		r.mu.Unlock()
		if len(list) > 0 {
			return list, f.After + uint64(len(list)), nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return nil, f.After, context.Cause(ctx)
		}
	}
}

// happen lets events happen and waits until they are counted.
func (r *rooms) happen(t *testing.T, events ...daeploy.Event) {
	t.Helper()
	r.mu.Lock()
	r.events = append(r.events, events...)
	if r.more != nil {
		close(r.more)
		r.more = nil
	}
	r.mu.Unlock()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		r.mu.Lock()
		done := r.seen == uint64(len(r.events))
		r.mu.Unlock()
		if done {
			return
		}
		if time.Now().After(end) {
			t.Fatal("the events are not counted")
		}
	}
}

// end is the end of a build, as an event; its record is there then.
func (r *rooms) end(b daeploy.Build) daeploy.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.builds == nil {
		r.builds = map[daeploy.BuildID]daeploy.Build{}
	}
	r.builds[b.ID] = b
	return daeploy.Event{Kind: daeploy.BuildEvent(b.Status), App: b.ID.App, Build: b.ID}
}

func (r *rooms) Counts() (int, int)                            { return r.running, r.waiting }
func (r *rooms) Oldest() time.Time                             { return r.oldest }
func (r *rooms) Doors() metrics.Traffic                        { return r.traffic }
func (r *rooms) Refusals() map[string]uint64                   { return r.refusals }
func (r *rooms) Records() (metrics.Holdings, error)            { return r.holdings, r.broken }
func (r *rooms) Disks(context.Context) ([]metrics.Disk, error) { return r.disks, r.broken }

// start serves until the test ends, and gives the address.
func start(t *testing.T, r *rooms, change func(*metrics.Config)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := metrics.Config{Listener: l, Version: "1.2.3", Queue: r, Doors: r, Records: r, Disks: r, Webhooks: r, Events: r, Log: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&c)
	}
	s, err := metrics.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run ended with %v; want nil", err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return l.Addr().String()
}

// ask sends one request and reads the answer.
func ask(t *testing.T, method, url string) (status int, body string, header http.Header) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(text), answer.Header
}

// read parses /metrics as Prometheus does.
func read(t *testing.T, addr string) map[string]*dto.MetricFamily {
	t.Helper()
	status, text, _ := ask(t, http.MethodGet, "http://"+addr+"/metrics")
	if status != http.StatusOK {
		t.Fatalf("/metrics answers %d:\n%s", status, text)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatalf("/metrics cannot be parsed: %v\n%s", err, text)
	}
	return families
}

// value finds the one sample with this label value ("" for the one without).
func value(t *testing.T, families map[string]*dto.MetricFamily, name, label string) float64 {
	t.Helper()
	for _, m := range families[name].GetMetric() {
		if label == "" && len(m.Label) == 0 || len(m.Label) > 0 && m.Label[0].GetValue() == label {
			return m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	t.Errorf("there is no %s{%s}", name, label)
	return 0
}

func TestNumbers(t *testing.T) {
	addr := start(t, &rooms{
		running: 2, waiting: 3, oldest: time.Now().Add(-time.Hour),
		traffic:  metrics.Traffic{Unproven: 4, Proven: 5, Local: 6, Receiving: 1, Fetching: 2, Admitted: 70, Dropped: 8, Crowded: 9, Penalized: 20, Sources: 21},
		refusals: map[string]uint64{"denied": 18, "git": 19},
		holdings: metrics.Holdings{Size: 1 << 20, Free: 1 << 10, Limit: 1 << 30, Apps: 12, Keys: 13, Logged: 14},
		disks:    []metrics.Disk{{Name: "state", Size: 100, Free: 50, Reserve: 5}},
		hooks:    []daeploy.Webhook{{Number: 1, Behind: 15, WebhookState: daeploy.WebhookState{GivenUp: 16, Skipped: 17}}},
	}, nil)
	got := read(t, addr)
	for _, want := range []struct {
		name, label string
		value       float64
	}{
		{"daeploy_build_info", "1.2.3", 1},
		{"daeploy_builds_running", "", 2},
		{"daeploy_builds_queued", "", 3},
		{"daeploy_ssh_connections", "unproven", 4},
		{"daeploy_ssh_connections", "proven", 5},
		{"daeploy_ssh_connections", "local", 6},
		{"daeploy_ssh_connections_total", "admitted", 70},
		{"daeploy_ssh_connections_total", "dropped", 8},
		{"daeploy_ssh_connections_total", "crowded", 9},
		{"daeploy_ssh_connections_total", "penalized", 20},
		{"daeploy_ssh_sources_refused", "", 21},
		{"daeploy_git_refusals_total", "denied", 18},
		{"daeploy_git_refusals_total", "git", 19},
		{"daeploy_git_transfers", "push", 1},
		{"daeploy_git_transfers", "fetch", 2},
		{"daeploy_database_size_bytes", "", 1 << 20},
		{"daeploy_database_free_bytes", "", 1 << 10},
		{"daeploy_database_limit_bytes", "", 1 << 30},
		{"daeploy_apps", "", 12},
		{"daeploy_keys", "", 13},
		{"daeploy_log_written_bytes_total", "", 14},
		{"daeploy_webhook_behind", "1", 15},
		{"daeploy_webhook_lost_total", "given_up", 16},
		{"daeploy_webhook_lost_total", "skipped", 17},
		{"daeploy_disk_size_bytes", "state", 100},
		{"daeploy_disk_free_bytes", "state", 50},
		{"daeploy_disk_reserve_bytes", "state", 5},
	} {
		if v := value(t, got, want.name, want.label); v != want.value {
			t.Errorf("%s{%s} is %v, want %v", want.name, want.label, v, want.value)
		}
	}
	if age := value(t, got, "daeploy_builds_queued_oldest_seconds", ""); age < 3600 || age > 3700 {
		t.Errorf("the oldest build waits for %v s, want an hour", age)
	}
}

// What one room cannot tell does not take the rest away.
func TestOneRoomIsSilent(t *testing.T) {
	addr := start(t, &rooms{running: 2, broken: errors.New("disk on fire")}, nil)
	read(t, addr)
	got := read(t, addr) // which tells of the faults of the first
	if v := value(t, got, "daeploy_builds_running", ""); v != 2 {
		t.Errorf("builds_running is %v, want 2", v)
	}
	if got["daeploy_database_size_bytes"] != nil {
		t.Error("there is a size of a database that cannot be asked")
	}
	if v := value(t, got, "promhttp_metric_handler_errors_total", "gathering"); v == 0 {
		t.Error("the fault was not counted")
	}
}

func TestChecks(t *testing.T) {
	var mu sync.Mutex
	var fault error
	addr := start(t, &rooms{}, func(c *metrics.Config) {
		c.Live = []metrics.Check{{Name: "database", Do: func(context.Context) error { return nil }}}
		c.Ready = append(c.Live, metrics.Check{Name: "pushes", Do: func(context.Context) error {
			mu.Lock()
			defer mu.Unlock()
			return fault
		}})
	})
	want := func(path string, status int, body string) {
		t.Helper()
		gotStatus, got, _ := ask(t, http.MethodGet, "http://"+addr+path)
		if gotStatus != status || got != body {
			t.Errorf("%s: %d %q, want %d %q", path, gotStatus, got, status, body)
		}
	}
	ready := func() float64 { return value(t, read(t, addr), "daeploy_ready", "pushes") }
	want("/livez", http.StatusOK, "database: ok\n")
	want("/readyz", http.StatusOK, "database: ok\npushes: ok\n")
	if v := ready(); v != 1 {
		t.Errorf("daeploy_ready is %v, want 1", v)
	}

	mu.Lock()
	fault = &daeploy.Error{Kind: daeploy.Unavailable, Code: "containerd_unavailable", Message: "no answer from /run/secret.sock", Err: errors.New("for the operator")}
	mu.Unlock()
	want("/livez", http.StatusOK, "database: ok\n")
	want("/readyz", http.StatusServiceUnavailable, "database: ok\npushes: containerd_unavailable\n")
	if v := ready(); v != 0 {
		t.Errorf("daeploy_ready is %v, want 0", v)
	}

	mu.Lock()
	fault = errors.New("open /secret/path")
	mu.Unlock()
	want("/readyz", http.StatusServiceUnavailable, "database: ok\npushes: internal_error\n")
}

// A check that hangs is an answer too, and however often it is asked, one
// goroutine hangs.
func TestCheckThatHangs(t *testing.T) {
	let, calls := make(chan struct{}), make(chan struct{}, 10)
	addr := start(t, &rooms{}, func(c *metrics.Config) {
		c.Live = []metrics.Check{{Name: "database", Do: func(context.Context) error {
			calls <- struct{}{}
			<-let
			return nil
		}}}
	})
	var asked sync.WaitGroup
	for range 5 {
		asked.Go(func() {
			status, text, _ := ask(t, http.MethodGet, "http://"+addr+"/livez")
			if status != http.StatusServiceUnavailable || text != "database: no_answer\n" {
				t.Errorf("/livez: %d %q", status, text)
			}
		})
	}
	asked.Wait()
	close(let)
	if n := len(calls); n != 1 {
		t.Errorf("the hanging check was called %d times, want once", n)
	}
}

func TestWhatIsServed(t *testing.T) {
	addr := start(t, &rooms{}, nil)
	for _, test := range []struct {
		method, path string
		status       int
	}{
		{http.MethodHead, "/metrics", http.StatusOK},
		{http.MethodHead, "/readyz", http.StatusOK},
		{http.MethodPost, "/metrics", http.StatusMethodNotAllowed},
		{http.MethodDelete, "/livez", http.StatusMethodNotAllowed},
		{http.MethodGet, "/", http.StatusNotFound},
		{http.MethodGet, "/debug/pprof/", http.StatusNotFound},
		{http.MethodGet, "/metrics/..%2f..%2fetc/passwd", http.StatusNotFound},
	} {
		if status, text, _ := ask(t, test.method, "http://"+addr+test.path); status != test.status {
			t.Errorf("%s %s: %d %q, want %d", test.method, test.path, status, text, test.status)
		}
	}
}

// F135: headers of 1 MB, bodies, half requests, readers that do not read, a
// second protocol.
func TestRudeReaders(t *testing.T) {
	patient := start(t, &rooms{}, nil)
	hasty := start(t, &rooms{}, func(c *metrics.Config) { c.Patience = 300 * time.Millisecond })
	dial := func(addr, words string) net.Conn {
		t.Helper()
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		go io.WriteString(conn, words) // it is cut off in the middle
		return conn
	}
	status := func(conn net.Conn) string {
		t.Helper()
		line, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil {
			t.Fatalf("no answer: %v", err)
		}
		return strings.TrimSpace(line)
	}
	t.Run("headers", func(t *testing.T) {
		got := status(dial(patient, "GET /metrics HTTP/1.1\r\nHost: x\r\nX: "+strings.Repeat("x", 1<<20)+"\r\n\r\n"))
		if !strings.Contains(got, "431") {
			t.Errorf("1 MB of headers: %q, want 431", got)
		}
	})
	t.Run("h2c", func(t *testing.T) {
		got := status(dial(patient, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
		if strings.Contains(got, "200") || !strings.HasPrefix(got, "HTTP/1.1") {
			t.Errorf("HTTP/2 without TLS: %q, want a refusal", got)
		}
	})
	t.Run("upgrade", func(t *testing.T) {
		got := status(dial(patient, "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n"))
		if !strings.Contains(got, "200") {
			t.Errorf("an upgrade: %q, want an answer by HTTP/1.1", got)
		}
	})
	gone := func(t *testing.T, conn net.Conn) {
		t.Helper()
		if _, err := io.Copy(io.Discard, conn); err != nil && isTimeout(err) {
			t.Error("the connection is still open after 20 s")
		}
	}
	t.Run("half a request", func(t *testing.T) { gone(t, dial(hasty, "GET /metrics HTTP/1.1\r\nHost: x\r\n")) })
	t.Run("nothing", func(t *testing.T) { gone(t, dial(hasty, "")) })
	t.Run("a body without end", func(t *testing.T) {
		gone(t, dial(hasty, "GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n"+strings.Repeat("x", 1<<20)))
	})
	t.Run("more than may be", func(t *testing.T) {
		for range 200 {
			dial(hasty, "GET /metrics HTTP/1.1\r\n")
		}
		if status, _, _ := ask(t, http.MethodGet, "http://"+hasty+"/livez"); status != http.StatusOK {
			t.Errorf("behind 200 slow readers: %d", status)
		}
	})
	t.Attr("F135", "headers of 1 MB, half requests, bodies without end, HTTP/2, 200 slow readers: refused or cut off, others are answered")
}

// F135: the time limits hold for one who asks and does not read, too.
func TestReaderWhoDoesNotRead(t *testing.T) {
	closed := make(chan struct{}, 1)
	addr := start(t, &rooms{}, func(c *metrics.Config) {
		c.Patience = 300 * time.Millisecond
		c.Listener = narrow{c.Listener, closed}
	})
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, strings.Repeat("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 500)); err != nil {
		t.Fatal(err)
	}
	select {
	case <-closed:
	case <-time.After(20 * time.Second):
		t.Error("the connection is still open after 20 s")
	}
}

// narrow listens to connections that hold little of what nobody reads, and says
// when one is closed.
type narrow struct {
	net.Listener
	closed chan<- struct{}
}

func (n narrow) Accept() (net.Conn, error) {
	conn, err := n.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return narrowConn{conn, n.closed}, conn.(*net.TCPConn).SetWriteBuffer(4 << 10)
}

type narrowConn struct {
	net.Conn
	closed chan<- struct{}
}

func (n narrowConn) Close() error {
	select {
	case n.closed <- struct{}{}:
	default:
	}
	return n.Conn.Close()
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

func TestNewRefuses(t *testing.T) {
	if _, err := metrics.New(metrics.Config{}); err == nil {
		t.Error("an empty Config was taken")
	}
}
