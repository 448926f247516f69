package metrics_test

import (
	"context"
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v2"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/metrics"
)

// What packaging asks Prometheus for is what the daemon has.
func TestPackaging(t *testing.T) {
	r := &rooms{disks: []metrics.Disk{{Name: "state"}}, hooks: []daeploy.Webhook{{Number: 1}}, refusals: map[string]uint64{"denied": 1}}
	addr := start(t, r, func(c *metrics.Config) {
		c.Ready = []metrics.Check{{Name: "database", Do: func(context.Context) error { return nil }}}
	})
	r.happen(t, r.end(blog(1, daeploy.StatusFailed, nil)))
	there := map[string]bool{"up": true} // Prometheus makes this one
	for name, family := range read(t, addr) {
		there[name] = true
		if family.GetMetric()[0].GetHistogram() != nil {
			delete(there, name)
			there[name+"_bucket"], there[name+"_sum"], there[name+"_count"] = true, true, true
		}
	}
	for _, file := range []string{"../packaging/grafana/daeploy.json", "../packaging/prometheus/daeploy.rules.yml"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var content any
		if strings.HasSuffix(file, ".json") {
			err = json.Unmarshal(text, &content)
		} else {
			err = yaml.UnmarshalStrict(text, &content)
		}
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		exprs := expressions(content)
		if len(exprs) < 8 {
			t.Errorf("%s has %d expressions; the test does not see them", file, len(exprs))
		}
		for _, expr := range exprs {
			for _, name := range asked(expr) {
				if !there[name] {
					t.Errorf("%s asks for %s, which is not there, in %s", file, name, expr)
				}
			}
		}
	}
}

// expressions are the values of all keys that hold PromQL.
func expressions(content any) (all []string) {
	visit := func(key string, value any) {
		if text, ok := value.(string); ok && (key == "expr" || key == "query" && strings.Contains(text, "(")) {
			all = append(all, text)
		}
		all = append(all, expressions(value)...)
	}
	switch c := content.(type) {
	case map[string]any:
		for key, value := range c {
			visit(key, value)
		}
	case map[any]any:
		for key, value := range c {
			visit(key.(string), value)
		}
	case []any:
		for _, value := range c {
			visit("", value)
		}
	}
	return all
}

var (
	notNames = regexp.MustCompile(`"[^"]*"|\[[^\]]*\]|\b(?:by|on) *\([^)]*\)`)
	matchers = regexp.MustCompile(`\{[^}]*\}`)
	words    = regexp.MustCompile(`[a-zA-Z_][a-zA-Z0-9_:]*\b *\(?`)
	spoken   = regexp.MustCompile(`^(?:and|or|unless|by|on|instance)$`)
)

// asked are the metrics that an expression names: its words that are no
// functions, labels or operators.
func asked(expr string) (names []string) {
	expr = matchers.ReplaceAllString(notNames.ReplaceAllString(expr, ""), "")
	for _, word := range words.FindAllString(expr, -1) {
		word = strings.TrimSpace(word)
		if !strings.HasSuffix(word, "(") && !spoken.MatchString(word) {
			names = append(names, word)
		}
	}
	return names
}
