package store_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
)

func TestWebhooks(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	s.Tell(daeploy.Event{Kind: daeploy.EventKeyAdded, Name: "anna"})
	begin := func(want map[string]daeploy.WebhookState, ids ...string) {
		t.Helper()
		got, err := s.BeginWebhooks(ids)
		must(t, err)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("places of %q (-want +got):\n%s", ids, diff)
		}
	}
	begin(map[string]daeploy.WebhookState{})
	begin(map[string]daeploy.WebhookState{"a": {After: 1}, "b": {After: 1}}, "a", "b")
	at := daeploy.WebhookState{After: 1, Attempts: 3, Status: 500, Error: "it answered 500", Skipped: 2}
	must(t, s.SetWebhook("a", at))
	s.Tell(daeploy.Event{Kind: daeploy.EventKeyAdded, Name: "bob"})

	must(t, s.Close())
	s = open(t, dir)
	begin(map[string]daeploy.WebhookState{"a": at, "c": {After: 2}}, "a", "c")
	begin(map[string]daeploy.WebhookState{"a": at, "b": {After: 2}}, "a", "b") // it was forgotten, and is new again
}
