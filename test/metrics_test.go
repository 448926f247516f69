package test_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// fetch asks the daemon over HTTP.
func (t *teller) fetch(path string) (status int, text string, err error) {
	answer, err := http.Get("http://" + t.metrics + path)
	if err != nil {
		return 0, "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return answer.StatusCode, string(body), err
}

// show makes text the standard output that the story looks at.
func (t *teller) show(text string) error {
	if err := os.WriteFile(t.path("fetched"), []byte(text), 0o600); err != nil {
		return err
	}
	return t.exec("cat", t.path("fetched"))
}

func (t *teller) doScrape(args []string) error {
	pattern, err := regexp.Compile(strings.Join(args, ""))
	if err != nil {
		return err
	}
	var text string
	err = within(20*time.Second, func() error {
		status, body, err := t.fetch("/metrics")
		if err == nil && (status != http.StatusOK || !pattern.MatchString(body)) {
			err = fmt.Errorf("/metrics answers %d, without %q:\n%s", status, pattern, body)
		}
		text = body
		return err
	})
	if err != nil {
		return err
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	if _, err := parser.TextToMetricFamilies(strings.NewReader(text)); err != nil {
		return fmt.Errorf("parse /metrics: %w", err)
	}
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil || len(problems) > 0 {
		return fmt.Errorf("lint /metrics: %v, %w", problems, err)
	}
	return t.show(text)
}

func (t *teller) doProbe(args []string) error {
	var text string
	err := within(20*time.Second, func() error {
		status, body, err := t.fetch(args[0])
		if err == nil && strconv.Itoa(status) != args[1] {
			err = fmt.Errorf("%s answers %d, want %s:\n%s", args[0], status, args[1], body)
		}
		text = body
		return err
	})
	if err != nil {
		return err
	}
	return t.show(text)
}
