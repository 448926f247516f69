package daeploy_test

import (
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
)

// TestEventsPage: docs/events.md explains each kind, and no other.
func TestEventsPage(t *testing.T) {
	text, err := os.ReadFile("docs/events.md")
	if err != nil {
		t.Fatal(err)
	}
	var page, kinds []string
	for _, row := range regexp.MustCompile("(?m)^\\| (`[^|]*`) \\|").FindAllStringSubmatch(string(text), -1) {
		for _, word := range regexp.MustCompile("`([a-z.]+)`").FindAllStringSubmatch(row[1], -1) {
			page = append(page, word[1])
		}
	}
	for _, k := range daeploy.EventKinds() {
		kinds = append(kinds, string(k))
	}
	slices.Sort(page)
	slices.Sort(kinds)
	if diff := cmp.Diff(kinds, page); diff != "" {
		t.Errorf("docs/events.md (-kinds +page):\n%s", diff)
	}
}

// TestBuildEvent: each status has a kind of its own, which EventKinds lists.
func TestBuildEvent(t *testing.T) {
	for _, s := range daeploy.Statuses() {
		if k := daeploy.BuildEvent(s); !slices.Contains(daeploy.EventKinds(), k) || k.Refusal() {
			t.Errorf("the kind of %s is %q", s, k)
		}
	}
}

// TestRefusal: what strangers can cause is bounded by itself.
func TestRefusal(t *testing.T) {
	for _, k := range []daeploy.EventKind{
		daeploy.EventLoginRefused, daeploy.EventPushRefused, daeploy.EventFetchRefused, daeploy.EventCommandRefused, daeploy.EventsOmitted,
	} {
		if !k.Refusal() {
			t.Errorf("%s is no refusal", k)
		}
	}
	if daeploy.EventPush.Refusal() || daeploy.EventKeyRemoved.Refusal() {
		t.Error("what somebody does with a right is a refusal")
	}
}
