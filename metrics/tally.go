package metrics

import (
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/daeploy/daeploy"
)

// How many values a label may have whose values are not ours, or not all here.
const (
	maxApps    = 200
	maxReasons = 100
	maxSteps   = 20
)

// tally is what has happened since the start. One goroutine counts.
type tally struct {
	events   *prometheus.CounterVec
	builds   *prometheus.CounterVec
	failures *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	wait     prometheus.Histogram
	steps    *prometheus.HistogramVec

	apps, reasons, stepNames values
}

// seconds from a tenth to half an hour: what builds and their parts take.
var buckets = []float64{0.1, 0.3, 1, 3, 10, 30, 60, 120, 300, 600, 900, 1800}

func newTally(all prometheus.Registerer) *tally {
	counter := func(name, help, label string, more ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "daeploy_" + name, Help: help}, append([]string{label}, more...))
	}
	duration := func(name, help string) prometheus.HistogramOpts {
		return prometheus.HistogramOpts{Name: "daeploy_" + name, Help: help, Buckets: buckets}
	}
	t := &tally{
		events:   counter("events_total", "What is in the audit trail, by kind.", "kind"),
		builds:   counter("builds_total", "Builds that have ended. Beyond 200 apps the app is _other.", "app", "status"),
		failures: counter("build_failures_total", "Builds that have failed, by reason code.", "reason"),
		seconds:  prometheus.NewHistogramVec(duration("build_seconds", "How long builds ran that have ended."), []string{"status"}),
		wait:     prometheus.NewHistogram(duration("build_wait_seconds", "How long builds waited that have ended.")),
		steps:    prometheus.NewHistogramVec(duration("build_step_seconds", "How long steps took of builds that have ended."), []string{"step"}),
		apps:     newValues(maxApps), reasons: newValues(maxReasons), stepNames: newValues(maxSteps),
	}
	for _, kind := range daeploy.EventKinds() {
		t.events.WithLabelValues(string(kind))
	}
	all.MustRegister(t.events, t.builds, t.failures, t.seconds, t.wait, t.steps)
	return t
}

// begin gives the apps that are there a zero, so that their first builds after
// the start are a rise.
func (t *tally) begin(apps []daeploy.App) {
	for _, a := range apps {
		t.app(a.Name)
	}
}

// app is the label of an app; a new one gets its zeros.
func (t *tally) app(name daeploy.AppName) string {
	label, fresh := t.apps.take(string(name))
	if !fresh {
		return label
	}
	for _, s := range daeploy.Statuses() {
		if s.Final() {
			t.builds.WithLabelValues(label, string(s))
		}
	}
	return label
}

// happened counts an event. read gives the record of a build; an error other
// than NotFound is returned, and what the record says is not counted then.
func (t *tally) happened(e daeploy.Event, read func(daeploy.BuildID) (daeploy.Build, error)) error {
	t.events.WithLabelValues(string(e.Kind)).Add(float64(max(1, e.Count)))
	word, ofBuild := strings.CutPrefix(string(e.Kind), "build.")
	status := daeploy.Status(word)
	switch {
	case e.Kind == daeploy.EventAppDeleted:
		t.builds.DeletePartialMatch(prometheus.Labels{"app": string(e.App)})
		t.apps.drop(string(e.App))
	case ofBuild: // other events name apps too, and in those a stranger can make names up
		label := t.app(e.App)
		if !slices.Contains(daeploy.Statuses(), status) || !status.Final() {
			return nil
		}
		t.builds.WithLabelValues(label, word).Inc()
		b, err := read(e.Build)
		if err != nil && daeploy.KindOf(err) != daeploy.NotFound {
			return err
		}
		if err == nil {
			t.ended(&b)
		}
	}
	return nil
}

func (t *tally) ended(b *daeploy.Build) {
	if b.Status == daeploy.StatusFailed {
		reason, _ := t.reasons.take(b.Reason)
		t.failures.WithLabelValues(reason).Inc()
	}
	if b.Started.IsZero() {
		return // it never had its turn
	}
	t.seconds.WithLabelValues(string(b.Status)).Observe(b.Duration(b.Ended).Seconds())
	t.wait.Observe(max(0, b.Started.Sub(b.Queued).Seconds()))
	for _, s := range b.Steps {
		if s.Duration > 0 {
			name, _ := t.stepNames.take(string(s.Name))
			t.steps.WithLabelValues(name).Observe(s.Duration.Seconds())
		}
	}
}

// values bounds how many a label has (F135).
type values struct {
	most  int
	known map[string]bool
}

func newValues(most int) values { return values{most, map[string]bool{}} }

// take gives the label for a value: itself, or _other if there are too many;
// fresh if it was not there before. No app, reason or step has such a name.
func (v values) take(value string) (label string, fresh bool) {
	switch {
	case v.known[value]:
		return value, false
	case len(v.known) < v.most:
		v.known[value] = true
		return value, true
	}
	return "_other", false
}

// drop makes room for another.
func (v values) drop(value string) { delete(v.known, value) }
