package control

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/daeploy/daeploy"
)

func (s *session) webhooks() *cobra.Command {
	return s.group("webhooks", "who is told of events", s.webhooksList(), s.webhooksTest())
}

func (s *session) webhooksList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "list the receivers of events, and how far they have come", Args: words(0, 0),
		Long:    "They are in the configuration, [[webhooks]]. What may be secret in a URL is not\nshown: user, password and query.",
		Example: "daeploy webhooks\ndaeploy webhooks list --json",
	}
	return s.declare(admins, s.answers(cmd, "array of webhook"), func(context.Context, daeploy.BuildID, []string) error {
		hooks, err := s.Webhooks.Webhooks()
		if err != nil {
			return err
		}
		if s.json {
			list := make([]webhookJSON, len(hooks))
			for i, h := range hooks {
				list[i] = newWebhookJSON(h)
			}
			return s.printJSON(list)
		}
		t := s.table(-1, "N", "URL", "APPS", "WAITING", "DELIVERED", "ANSWER")
		for _, h := range hooks {
			t.row(strconv.Itoa(h.Number), clip(h.URL, 60), clip(hookApps(h), 24), hookBehind(h), s.since(stamp(h.Delivered)), hookAnswer(h))
		}
		t.end()
		return nil
	})
}

func hookApps(h daeploy.Webhook) string {
	if h.Apps == nil {
		return "all"
	}
	var names []string
	for _, a := range h.Apps {
		names = append(names, string(a))
	}
	return strings.Join(names, ",")
}

// hookBehind is how many wait, and how many never came.
func hookBehind(h daeploy.Webhook) string {
	behind := strconv.Itoa(h.Behind)
	if h.Behind == daeploy.MaxWebhookBehind {
		behind += " or more"
	}
	if lost := h.GivenUp + h.Skipped; lost > 0 {
		behind += fmt.Sprintf(" (%d lost)", lost)
	}
	return behind
}

func hookAnswer(h daeploy.Webhook) string {
	switch {
	case h.Error != "":
		return clip(h.Error, 80)
	case h.Status != 0:
		return strconv.Itoa(h.Status)
	}
	return ""
}

func (s *session) webhooksTest() *cobra.Command {
	cmd := &cobra.Command{
		Use: "test N|URL", Short: "send a ping to a receiver, once", Args: words(1, 1),
		Long: "The receiver is named by its number or URL, as in the list. Events that wait for\n" +
			"it go on waiting.",
		Example: "daeploy webhooks test 1",
	}
	return s.declare(admins, s.answers(cmd, "delivery"), func(ctx context.Context, _ daeploy.BuildID, args []string) error {
		h, err := s.webhook(args[0])
		if err != nil {
			return err
		}
		d, err := s.Webhooks.TestWebhook(ctx, h.Number)
		if err != nil {
			return err
		}
		if s.json {
			return s.printJSON(deliveryJSON{d.ID, h.URL, d.Status, seconds(d.Duration.Round(time.Millisecond))})
		}
		s.print("%s answered %d after %s", h.URL, d.Status, span(d.Duration))
		return nil
	})
}

// webhook finds one by its number or URL.
func (s *session) webhook(word string) (daeploy.Webhook, error) {
	hooks, err := s.Webhooks.Webhooks()
	if err != nil {
		return daeploy.Webhook{}, err
	}
	var urls []string
	for _, h := range hooks {
		if word == strconv.Itoa(h.Number) || word == h.URL {
			return h, nil
		}
		urls = append(urls, h.URL)
	}
	e := &daeploy.Error{
		Kind: daeploy.NotFound, Code: "webhook_not_found", Message: "there is no webhook " + quote(word),
		Hint: "webhooks lists them; they are in the configuration of this host",
	}
	if near := daeploy.Nearest(word, urls); near != "" && !strings.ContainsAny(word, " ") {
		e.Hint = fmt.Sprintf("did you mean %s? %s", near, e.Hint)
	}
	return daeploy.Webhook{}, e
}

func newWebhookJSON(h daeploy.Webhook) webhookJSON {
	out := webhookJSON{
		Number: h.Number, URL: h.URL, Events: h.Kinds, Apps: h.Apps, Behind: h.Behind, Delivered: stamp(h.Delivered),
		Status: h.Status, Error: h.Error, Attempts: h.Attempts, GivenUp: h.GivenUp, Skipped: h.Skipped,
	}
	if out.Apps == nil {
		out.Apps = []daeploy.AppName{}
	}
	if h.Waiting {
		out.Next = stamp(h.Next)
	}
	return out
}

// Notice is what webhooks send: an event, and the record of the build that it is
// about, or nil, with the fields that events --json and build --json print.
func Notice(delivery string, e daeploy.Event, b *daeploy.Build) []byte {
	notice := noticeJSON{Delivery: delivery, Event: newEventJSON(e)}
	if b != nil {
		record := newBuildJSON(b, time.Now())
		notice.Build = &record
	}
	return oneLineJSON(notice)
}
