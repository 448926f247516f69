package metrics_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/metrics"
)

// sample finds the sample with these label values, in the order of the labels' names.
func sample(families map[string]*dto.MetricFamily, name string, labels ...string) *dto.Metric {
	for _, m := range families[name].GetMetric() {
		var has []string
		for _, l := range m.Label {
			has = append(has, l.GetValue())
		}
		if slices.Equal(has, labels) {
			return m
		}
	}
	return nil
}

func blog(number uint64, status daeploy.Status, change func(*daeploy.Build)) daeploy.Build {
	queued := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	b := daeploy.Build{
		ID: daeploy.BuildID{App: "blog", Number: number}, Status: status,
		Queued: queued, Started: queued.Add(2 * time.Second), Ended: queued.Add(42 * time.Second),
		Steps: []daeploy.Step{
			{Name: daeploy.StepCheckout, Duration: 200 * time.Millisecond},
			{Name: daeploy.StepAssemble, Duration: 35 * time.Second},
			{Name: daeploy.StepCommit}, // it did not end
		},
	}
	if change != nil {
		change(&b)
	}
	return b
}

func TestBuilds(t *testing.T) {
	r := &rooms{apps: []daeploy.App{{Name: "blog"}}}
	addr := start(t, r, nil)
	r.happen(t)
	total := func(app, status string) float64 {
		t.Helper()
		m := sample(read(t, addr), "daeploy_builds_total", app, status)
		if m == nil {
			t.Fatalf("there is no daeploy_builds_total{%s,%s}", app, status)
		}
		return m.GetCounter().GetValue()
	}
	if n := total("blog", "failed"); n != 0 {
		t.Errorf("before all events %v builds of blog have failed; want 0, so that the first is a rise", n)
	}
	secret := blog(3, daeploy.StatusFailed, func(b *daeploy.Build) {
		b.Reason, b.Message, b.By, b.Subject, b.Options.Env = "assemble_failed", "swordfish", "swordfish", "swordfish", map[string]string{"A": "swordfish"}
	})
	r.happen(
		t,
		daeploy.Event{Kind: daeploy.EventBuildQueued, App: "blog", Build: daeploy.BuildID{App: "blog", Number: 1}},
		daeploy.Event{Kind: daeploy.EventBuildStarted, App: "blog", Build: daeploy.BuildID{App: "blog", Number: 1}},
		r.end(blog(1, daeploy.StatusSucceeded, nil)),
		r.end(blog(2, daeploy.StatusCanceled, func(b *daeploy.Build) { b.Started, b.Steps = time.Time{}, nil })),
		r.end(secret),
		daeploy.Event{Kind: daeploy.EventBuildFailed, App: "gone", Build: daeploy.BuildID{App: "gone", Number: 9}},
		daeploy.Event{Kind: daeploy.EventPushRefused, App: "invented"},
		daeploy.Event{Kind: daeploy.EventLoginRefused, Count: 7},
	)
	got := read(t, addr)
	for _, want := range []struct {
		name   string
		labels []string
		value  float64
	}{
		{"daeploy_builds_total", []string{"blog", "succeeded"}, 1},
		{"daeploy_builds_total", []string{"blog", "canceled"}, 1},
		{"daeploy_builds_total", []string{"blog", "failed"}, 1},
		{"daeploy_builds_total", []string{"blog", "interrupted"}, 0},
		{"daeploy_builds_total", []string{"gone", "failed"}, 1},
		{"daeploy_build_failures_total", []string{"assemble_failed"}, 1},
		{"daeploy_events_total", []string{"login.refused"}, 7},
		{"daeploy_events_total", []string{"build.failed"}, 2},
		{"daeploy_events_total", []string{"secret.set"}, 0},
	} {
		if m := sample(got, want.name, want.labels...); m == nil || m.GetCounter().GetValue() != want.value {
			t.Errorf("%s%q is %v, want %v", want.name, want.labels, m, want.value)
		}
	}
	if sample(got, "daeploy_builds_total", "invented", "failed") != nil {
		t.Error("an app that somebody made up has a label")
	}
	for _, want := range []struct {
		name, label string
		count       uint64
		sum         float64
	}{
		{"daeploy_build_seconds", "succeeded", 1, 40},
		{"daeploy_build_seconds", "failed", 1, 40},
		{"daeploy_build_step_seconds", "assemble", 2, 70},
		{"daeploy_build_step_seconds", "checkout", 2, 0.4},
	} {
		m := sample(got, want.name, want.label)
		if h := m.GetHistogram(); h.GetSampleCount() != want.count || h.GetSampleSum() != want.sum {
			t.Errorf("%s{%s} is %v, want %d with the sum %v", want.name, want.label, h, want.count, want.sum)
		}
	}
	if h := got["daeploy_build_wait_seconds"].GetMetric()[0].GetHistogram(); h.GetSampleCount() != 2 || h.GetSampleSum() != 4 {
		t.Errorf("daeploy_build_wait_seconds is %v, want 2 with the sum 4", h)
	}
	if sample(got, "daeploy_build_seconds", "canceled") != nil || sample(got, "daeploy_build_step_seconds", "commit") != nil {
		t.Error("what did not run has a duration")
	}
	if _, text, _ := ask(t, http.MethodGet, "http://"+addr+"/metrics"); strings.Contains(text, "swordfish") {
		t.Errorf("a word of a build is shown:\n%s", text)
	}

	r.happen(t, daeploy.Event{Kind: daeploy.EventAppDeleted, App: "blog"})
	if sample(read(t, addr), "daeploy_builds_total", "blog", "succeeded") != nil {
		t.Error("a deleted app is still counted")
	}
}

// F135: 10,000 apps and reasons that nobody knew; the answer stays small.
func TestCardinality(t *testing.T) {
	r := &rooms{}
	addr := start(t, r, nil)
	var events []daeploy.Event
	for i := range 10_000 {
		events = append(events, r.end(blog(1, daeploy.StatusFailed, func(b *daeploy.Build) {
			b.ID.App = daeploy.AppName(fmt.Sprintf("app-%d", i))
			b.Reason = fmt.Sprintf("reason_%d", i)
			b.Steps = []daeploy.Step{{Name: daeploy.StepName(fmt.Sprintf("step-%d", i)), Duration: time.Second}}
		})))
	}
	r.happen(t, events...)
	got := read(t, addr)
	if m := sample(got, "daeploy_builds_total", "_other", "failed"); m.GetCounter().GetValue() != 9800 {
		t.Errorf("builds of other apps: %v, want 9800", m)
	}
	for name, most := range map[string]int{"daeploy_builds_total": 200*5 + 1, "daeploy_build_failures_total": 101, "daeploy_build_step_seconds": 21} {
		if n := len(got[name].GetMetric()); n > most {
			t.Errorf("%s has %d series, want at most %d", name, n, most)
		}
	}
	_, text, _ := ask(t, http.MethodGet, "http://"+addr+"/metrics")
	if len(text) > 256<<10 {
		t.Errorf("the answer has %d bytes, want at most 256 KiB", len(text))
	}
	r.happen(t, daeploy.Event{Kind: daeploy.EventAppDeleted, App: "app-7"}, r.end(blog(1, daeploy.StatusFailed, nil)))
	if sample(read(t, addr), "daeploy_builds_total", "blog", "failed") == nil {
		t.Error("a deleted app makes no room for another")
	}
	t.Attr("F135", "10,000 apps and reasons: at most 200 apps by name, the answer below 256 KiB")
}

// What happened before this daemon is not its to count.
func TestCountsFromItsPlace(t *testing.T) {
	r := &rooms{}
	r.events = []daeploy.Event{r.end(blog(1, daeploy.StatusFailed, nil))}
	addr := start(t, r, func(c *metrics.Config) { c.After = 1 })
	r.happen(t, r.end(blog(2, daeploy.StatusFailed, nil)))
	if m := sample(read(t, addr), "daeploy_builds_total", "blog", "failed"); m.GetCounter().GetValue() != 1 {
		t.Errorf("failed builds: %v, want the one behind the place", m)
	}
}

func TestLint(t *testing.T) {
	r := &rooms{}
	addr := start(t, r, nil)
	r.happen(t, r.end(blog(1, daeploy.StatusFailed, nil)))
	_, text, _ := ask(t, http.MethodGet, "http://"+addr+"/metrics")
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}
