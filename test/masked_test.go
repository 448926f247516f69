package test_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container/containertest"
)

// S76: of a password at which a script was cut off nothing is shown, neither of
// assemble nor of save-artifacts.
func TestCutOffPassword(t *testing.T) {
	b := savingBench(t)
	d, push := b.firstPush(t, &crash{dead: make(chan struct{})})
	defer d.end(t)
	if err := d.pipeline.Receive(d.ctx, push, io.Discard)[0]; err != nil {
		t.Fatal(err)
	}
	b.fake.Programs[saveScript] = func(ctx context.Context, _ *containertest.Fake, r containertest.Run) int {
		io.WriteString(r.Err, "saver\nsaver has sec")
		io.WriteString(r.Out, strings.Repeat("no archive", 1<<10))
		<-ctx.Done()
		return 1
	}
	b.fake.Programs["/usr/libexec/s2i/assemble"] = func(ctx context.Context, _ *containertest.Fake, r containertest.Run) int {
		io.WriteString(r.Out, "builder\nbuilder has sec")
		<-ctx.Done()
		return 1
	}
	push = b.secondPush(t)
	answered := make(chan []error, 1)
	go func() { answered <- d.pipeline.Receive(d.ctx, push, io.Discard) }()
	id := daeploy.BuildID{App: "blog", Number: 2}
	var text bytes.Buffer
	err := within(10*time.Second, func() error {
		text.Reset()
		if err := d.store.CopyLog(t.Context(), &text, id, daeploy.LogView{}); err != nil || !strings.Contains(text.String(), "| builder\n") {
			return fmt.Errorf("the log: %q, %w", &text, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.pipeline.Cancel(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if err := (<-answered)[0]; err == nil {
		t.Error("the push was accepted")
	}
	text.Reset()
	if err := d.store.CopyLog(t.Context(), &text, id, daeploy.LogView{}); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"| saver\n", "| saver has \n", "| builder\n", "| builder has \n"} {
		if !strings.Contains(text.String(), line) {
			t.Errorf("the log lacks %q:\n%s", line, &text)
		}
	}
}
