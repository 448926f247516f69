package metrics

import (
	"context"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// collector asks the rooms for what is now, each time somebody reads.
type collector struct {
	config Config
	ready  checks
}

func newCollector(c Config, ready checks) *collector { return &collector{c, ready} }

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("daeploy_"+name, help, labels, nil)
}

var (
	buildInfo = describe("build_info", "1, with the version of the daemon.", "version")
	ready     = describe("ready", "Whether a condition of taking pushes holds: what /readyz asks.", "check")

	running = describe("builds_running", "Builds that run.")
	queued  = describe("builds_queued", "Builds that wait.")
	oldest  = describe("builds_queued_oldest_seconds", "How long that build waits that has waited longest; 0 if none does.")

	connections = describe("ssh_connections", "Open connections: without a login yet, with one, and of this host's own door.", "state")
	accepted    = describe("ssh_connections_total", "Connections to the SSH door: let in, or dropped unheard because too many had not logged in or came from one source, or for what had come from it.", "result")
	sources     = describe("ssh_sources_refused", "Addresses and networks whose connections are refused now, for failed logins and the like.")
	transfers   = describe("git_transfers", "Pushes and fetches that git works on.", "kind")

	refused = describe("git_refusals_total", "Pushes and fetches that were refused, by reason code; git stands for what git itself refused.", "reason")

	hookBehind = describe("webhook_behind", "Events that wait for a webhook, counted to 1000.", "webhook")
	hookLost   = describe("webhook_lost_total", "Events that a webhook did not get: given up because it refused them, skipped because they were too old or too many.", "webhook", "reason")

	apps      = describe("apps", "Apps.")
	keys      = describe("keys", "Keys that may log in.")
	dbSize    = describe("database_size_bytes", "Size of the database's file.")
	dbFree    = describe("database_free_bytes", "What is unused in the database's file.")
	dbLimit   = describe("database_limit_bytes", "How far the database's file may grow.")
	logged    = describe("log_written_bytes_total", "Bytes written to the logs of builds.")
	diskSize  = describe("disk_size_bytes", "Size of a file system that builds fill.", "disk")
	diskFree  = describe("disk_free_bytes", "What is free there.", "disk")
	diskSaved = describe("disk_reserve_bytes", "What builds leave free there.", "disk")
)

// Describe lists what Collect may give.
func (*collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		buildInfo, ready, running, queued, oldest, connections, accepted, sources, transfers,
		refused, hookBehind, hookLost, apps, keys, dbSize, dbFree, dbLimit, logged, diskSize, diskFree, diskSaved,
	} {
		out <- d
	}
}

// Collect gives what can be had; for the rest it gives errors, which the
// handler logs.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	// The library has no ctx to hand on; each source bounds itself by this one.
	ctx, cancel := context.WithTimeout(context.Background(), c.config.Patience)
	defer cancel()
	to := sink(out)
	to.gauge(buildInfo, 1, c.config.Version)
	for i, err := range c.ready.ask(ctx) {
		holds := 1.0
		if err != nil {
			holds = 0
		}
		to.gauge(ready, holds, c.ready[i].Name)
	}
	c.builds(to)
	c.doors(to)
	c.records(to)
	c.disks(ctx, to)
	c.webhooks(to)
}

func (c *collector) builds(to sink) {
	run, wait := c.config.Queue.Counts()
	to.gauge(running, float64(run))
	to.gauge(queued, float64(wait))
	age := 0.0
	if since := c.config.Queue.Oldest(); !since.IsZero() {
		age = max(0, time.Since(since).Seconds()) // a clock may have been set back
	}
	to.gauge(oldest, age)
}

func (c *collector) doors(to sink) {
	t := c.config.Doors.Doors()
	to.gauge(connections, float64(t.Unproven), "unproven")
	to.gauge(connections, float64(t.Proven), "proven")
	to.gauge(connections, float64(t.Local), "local")
	to.counter(accepted, float64(t.Admitted), "admitted")
	to.counter(accepted, float64(t.Dropped), "dropped")
	to.counter(accepted, float64(t.Crowded), "crowded")
	to.counter(accepted, float64(t.Penalized), "penalized")
	to.gauge(sources, float64(t.Sources))
	to.gauge(transfers, float64(t.Receiving), "push")
	to.gauge(transfers, float64(t.Fetching), "fetch")
	for reason, n := range c.config.Doors.Refusals() {
		to.counter(refused, float64(n), reason)
	}
}

func (c *collector) records(to sink) {
	h, err := c.config.Records.Records()
	if err != nil {
		to.fail(dbSize, err)
		return
	}
	to.gauge(apps, float64(h.Apps))
	to.gauge(keys, float64(h.Keys))
	to.gauge(dbSize, float64(h.Size))
	to.gauge(dbFree, float64(h.Free))
	to.gauge(dbLimit, float64(h.Limit))
	to.counter(logged, float64(h.Logged))
}

func (c *collector) disks(ctx context.Context, to sink) {
	disks, err := c.config.Disks.Disks(ctx)
	if err != nil {
		to.fail(diskFree, err)
	}
	for _, d := range disks {
		to.gauge(diskSize, float64(d.Size), d.Name)
		to.gauge(diskFree, float64(d.Free), d.Name)
		to.gauge(diskSaved, float64(d.Reserve), d.Name)
	}
}

func (c *collector) webhooks(to sink) {
	hooks, err := c.config.Webhooks.Webhooks()
	if err != nil {
		to.fail(hookBehind, err)
	}
	for _, h := range hooks {
		number := strconv.Itoa(h.Number)
		to.gauge(hookBehind, float64(h.Behind), number)
		to.counter(hookLost, float64(h.GivenUp), number, "given_up")
		to.counter(hookLost, float64(h.Skipped), number, "skipped")
	}
}

// sink is where metrics go.
type sink chan<- prometheus.Metric

func (s sink) gauge(d *prometheus.Desc, value float64, labels ...string) {
	s <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
}

func (s sink) counter(d *prometheus.Desc, value float64, labels ...string) {
	s <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, value, labels...)
}

func (s sink) fail(d *prometheus.Desc, err error) { s <- prometheus.NewInvalidMetric(d, err) }
