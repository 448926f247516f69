package control

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math"
	"strings"
	"time"
	"unicode/utf16"

	"github.com/daeploy/daeploy"
)

// The objects that --json prints. Their fields are a promise to scripts: a
// field may be added, none is renamed, removed, left out, or given another
// type. Times are RFC 3339 in UTC and null while they have not come; durations
// are seconds, sizes bytes; a text that is not known is "", never null; a list
// without elements is [], never null. The doc tags become docs/commands.md.

// buildJSON is a build: one attempt to turn a commit into an image.
type buildJSON struct {
	ID            daeploy.BuildID  `json:"id" doc:"APP/N, as in \"blog/17\""`
	App           daeploy.AppName  `json:"app" doc:"the app"`
	Number        uint64           `json:"number" doc:"counts per app, from 1"`
	Status        daeploy.Status   `json:"status" doc:"queued, running, succeeded, failed, canceled, superseded or interrupted"`
	Reason        string           `json:"reason" doc:"why it failed, as a stable code"`
	Message       string           `json:"message" doc:"why, as a sentence"`
	Hint          string           `json:"hint" doc:"the next action after a failure"`
	ExitCode      int              `json:"exit_code" doc:"of the script that failed; else 0"`
	Commit        daeploy.Revision `json:"commit" doc:"full id of the commit"`
	Subject       string           `json:"subject" doc:"first line of the commit's message"`
	Branch        string           `json:"branch" doc:"the branch or tag that was pushed"`
	Forced        bool             `json:"forced" doc:"the commit does not descend from what the branch had: the push was forced"`
	By            string           `json:"by" doc:"name of the key that pushed, or asked for the rebuild"`
	RebuildOf     string           `json:"rebuild_of" doc:"APP/N of the build whose commit is built again, or \"\""`
	Builder       daeploy.ImageRef `json:"builder" doc:"the builder image"`
	BuilderDigest string           `json:"builder_digest" doc:"its digest when it was used"`
	Image         daeploy.ImageRef `json:"image" doc:"the image that was made"`
	ImageDigest   string           `json:"image_digest" doc:"its digest"`
	Incremental   bool             `json:"incremental" doc:"save-artifacts of the previous image was run, and what it gave was used"`
	Clean         string           `json:"clean" doc:"why not, or \"\""`
	Reused        string           `json:"reused" doc:"APP/N of the build whose image this one has, because it was built from the same, or \"\""`
	Position      int              `json:"position" doc:"place in the queue, from 1; 0 for a build that does not wait"`
	WaitsFor      string           `json:"waits_for" doc:"APP/N of the build that it waits for, or \"undrain\" while nothing begins; \"\" if it waits for none, or for an app's that you may not read"`
	Queued        *time.Time       `json:"queued" doc:"when the push was accepted"`
	Started       *time.Time       `json:"started" doc:"when the build left the queue, or null"`
	Ended         *time.Time       `json:"ended" doc:"when it was over, or null"`
	Duration      float64          `json:"duration" doc:"seconds that it has run, whatever was done to the clock meanwhile; 0 before"`
	Steps         []stepJSON       `json:"steps" doc:"array of steps, in order"`
	Publication   *publicationJSON `json:"publication" doc:"the image's way to a registry, or null if it goes to none"`
}

// publicationJSON is an image's way to a registry.
type publicationJSON struct {
	Status     daeploy.PublicationStatus `json:"status" doc:"pending, pushed or failed"`
	Names      []daeploy.ImageRef        `json:"names" doc:"array of what the image is called there, or is to be; without names that a newer build has"`
	Digest     string                    `json:"digest" doc:"of its manifest there, which is not image_digest: layers are compressed; or \"\""`
	SBOM       string                    `json:"sbom" doc:"digest of the manifest of its bill of materials there, or \"\""`
	Provenance string                    `json:"provenance" doc:"digest of the manifest of its provenance there, or \"\""`
	Attempts   int                       `json:"attempts" doc:"how many were begun"`
	Reason     string                    `json:"reason" doc:"why the last one failed, as a stable code"`
	Message    string                    `json:"message" doc:"why, as a sentence"`
	Hint       string                    `json:"hint" doc:"the next action after a failure"`
	Since      *time.Time                `json:"since" doc:"when it began"`
	Next       *time.Time                `json:"next" doc:"when the next attempt is due, or null"`
	Ended      *time.Time                `json:"ended" doc:"when it was pushed or given up, or null"`
}

// stepJSON is a timed part of a build.
type stepJSON struct {
	Name     daeploy.StepName `json:"name" doc:"config, builder, runtime, reuse, artifacts, checkout, assemble, carry, assemble-runtime, commit or record"`
	Started  *time.Time       `json:"started" doc:"when it began"`
	Duration float64          `json:"duration" doc:"seconds; 0 while it goes on"`
	Detail   string           `json:"detail" doc:"a few words for people"`
}

// appJSON is an app.
type appJSON struct {
	Name    daeploy.AppName `json:"name" doc:"the app"`
	Branch  string          `json:"branch" doc:"the deploy branch; \"\" before the first push of a branch"`
	Fixed   bool            `json:"branch_fixed" doc:"apps set has set it: it wins over .daeploy"`
	Created *time.Time      `json:"created" doc:"when it was made"`
	Builds  uint64          `json:"builds" doc:"the highest build number given out"`
	Last    *buildJSON      `json:"last" doc:"the newest build, or null"`
}

// keyJSON is a public key that may log in.
type keyJSON struct {
	ID     daeploy.KeyID     `json:"id" doc:"fingerprint, \"SHA256:...\""`
	Name   string            `json:"name" doc:"chosen by the one who added it"`
	Type   string            `json:"type" doc:"\"ssh-ed25519\" and the like"`
	Public string            `json:"public" doc:"the key as in authorized_keys, without comment"`
	Admin  bool              `json:"admin" doc:"may do everything"`
	Apps   []daeploy.AppName `json:"apps" doc:"array of the apps it may push to, read and change if it is not admin"`
	Read   []daeploy.AppName `json:"read" doc:"array of the apps it may only read"`
	Added  *time.Time        `json:"added" doc:"when it was added"`
}

// variableJSON is a variable of an app's builds.
type variableJSON struct {
	Name    string     `json:"name" doc:"the variable"`
	Value   string     `json:"value" doc:"what it is set to; a password in the URL of a proxy is \"redacted\""`
	Persist bool       `json:"persist" doc:"it is in the images too"`
	Set     *time.Time `json:"set" doc:"when it was set"`
}

// secretJSON is a secret of an app's builds. Its value is shown to nobody.
type secretJSON struct {
	Name string     `json:"name" doc:"the file below /run/secrets"`
	Size int        `json:"size" doc:"bytes"`
	Set  *time.Time `json:"set" doc:"when it was set"`
}

// eventJSON is something that happened: a line of the audit trail.
type eventJSON struct {
	Sequence    uint64            `json:"sequence" doc:"rises from event to event, with gaps"`
	Time        *time.Time        `json:"time" doc:"when it happened"`
	Kind        daeploy.EventKind `json:"kind" doc:"what happened, as in \"build.failed\"; help events lists all"`
	App         daeploy.AppName   `json:"app" doc:"the app it concerns, or \"\""`
	Build       string            `json:"build" doc:"APP/N of the build it concerns, or \"\""`
	By          string            `json:"by" doc:"name of the key behind it; \"\" for a stranger"`
	Key         daeploy.KeyID     `json:"key" doc:"fingerprint of that key; \"\" for the operator on the host"`
	Certificate string            `json:"certificate" doc:"serial and CA of the certificate that let the key in; \"\" for a key that was added"`
	Remote      string            `json:"remote" doc:"where it came from: address and port, or \"local uid N\""`
	Name        string            `json:"name" doc:"of the key, ref, variable, secret, image or command it is about"`
	Reason      string            `json:"reason" doc:"why something was refused or has failed: a code of reason-codes.md, \"git\" if git itself refused, or \"\""`
	Message     string            `json:"message" doc:"why, as a sentence"`
	Duration    float64           `json:"duration" doc:"seconds that a push or build took; 0 for what takes no time"`
	Count       int               `json:"count" doc:"how many like this one it stands for"`
}

// webhookJSON is a receiver of events.
type webhookJSON struct {
	Number    int                 `json:"number" doc:"in the order of the configuration, from 1"`
	URL       string              `json:"url" doc:"without user, password and query"`
	Events    []daeploy.EventKind `json:"events" doc:"kinds of events it is told of"`
	Apps      []daeploy.AppName   `json:"apps" doc:"apps whose events it is told of; [] for all"`
	Behind    int                 `json:"behind" doc:"events that wait for it, counted to 1000"`
	Delivered *time.Time          `json:"delivered" doc:"when it took one last, or null"`
	Status    int                 `json:"status" doc:"of its last answer, as in 204; 0 if there was none"`
	Error     string              `json:"error" doc:"why the last attempt failed, or \"\""`
	Attempts  int                 `json:"attempts" doc:"in vain, of the event that is next"`
	Next      *time.Time          `json:"next" doc:"when the next attempt is due, or null"`
	GivenUp   uint64              `json:"given_up" doc:"events that it refused"`
	Skipped   uint64              `json:"skipped" doc:"events that were too old, or too many"`
}

// deliveryJSON is one attempt to hand an event over.
type deliveryJSON struct {
	Delivery string  `json:"delivery" doc:"id, as in the header Daeploy-Delivery"`
	URL      string  `json:"url" doc:"of the receiver, as in the list"`
	Status   int     `json:"status" doc:"of its answer"`
	Duration float64 `json:"duration" doc:"seconds until it came"`
}

// noticeJSON is what receivers are sent.
type noticeJSON struct {
	Delivery string     `json:"delivery"`
	Event    eventJSON  `json:"event"`
	Build    *buildJSON `json:"build"`
}

// imageJSON is an image on this host.
type imageJSON struct {
	Image   daeploy.ImageRef `json:"image" doc:"its full name"`
	Digest  string           `json:"digest" doc:"of its manifest, \"sha256:...\""`
	Size    int64            `json:"size" doc:"bytes of its layers as stored"`
	Created *time.Time       `json:"created" doc:"when it came to this host, or null if that is not known"`
	Build   string           `json:"build" doc:"APP/N of the build that made it, or \"\""`
	Latest  bool             `json:"latest" doc:"it is what the name :latest of its app stands for"`
}

// builderJSON is an image on this host with its configuration.
type builderJSON struct {
	Image   daeploy.ImageRef `json:"image" doc:"its full name"`
	Digest  string           `json:"digest" doc:"of its manifest, \"sha256:...\""`
	Size    int64            `json:"size" doc:"bytes of its layers as stored"`
	Created *time.Time       `json:"created" doc:"when it came to this host, or null if that is not known"`
	Config  json.RawMessage  `json:"config" doc:"the OCI image config, an object"`
}

// Status is the daemon as a whole. Its fields are what `status --json` prints.
type Status struct {
	Version    string  `json:"version" doc:"of the daemon"`
	Uptime     float64 `json:"uptime" doc:"seconds since it started"`
	Containerd string  `json:"containerd" doc:"\"ok\", or a sentence that says what is wrong"`
	Config     string  `json:"config" doc:"\"ok\", or a sentence that says what is wrong with the configuration file, or not taken of it"`
	SSH        string  `json:"ssh" doc:"address of the SSH door, or \"\" if it is closed"`
	URL        string  `json:"url" doc:"what pushers call this host, \"ssh://daeploy@HOST:PORT\", without an app"`
	HostKey    string  `json:"host_key" doc:"fingerprint of the host key, \"SHA256:...\""`
	Running    int     `json:"running" doc:"builds that run"`
	Queued     int     `json:"queued" doc:"builds that wait"`
	Refused    int     `json:"refused_sources" doc:"addresses and networks whose connections are refused now, for failed logins and the like"`
	Free       int64   `json:"free" doc:"bytes free for the state directory"`

	Draining *time.Time `json:"draining" doc:"since when no build begins and no push comes in, or null"`
}

// Reload is what the daemon has taken of a configuration that it has read again.
type Reload struct {
	File    string   `json:"file" doc:"that was read, or \"\" if there is none"`
	Taken   []string `json:"taken" doc:"array of keys that have another value from now on"`
	Restart []string `json:"restart" doc:"array of keys whose new value needs a restart; the daemon goes on with the old one"`
}

// gcJSON is what one garbage collection has freed, or with --dry-run would free.
type gcJSON struct {
	DryRun        bool               `json:"dry_run" doc:"nothing was removed"`
	Apps          []freedJSON        `json:"apps" doc:"array of freed, by name: apps of which something goes, or is left for now"`
	Unclaimed     []daeploy.ImageRef `json:"unclaimed" doc:"array of images that no known build has"`
	Caches        []daeploy.AppName  `json:"caches" doc:"array of apps that are gone and had left a package cache"`
	Leftovers     []daeploy.BuildID  `json:"leftovers" doc:"array of builds that are over and had something left in containerd"`
	Bytes         int64              `json:"bytes" doc:"sum of the sizes below"`
	DatabaseBytes int64              `json:"database_bytes" doc:"size of the database, which does not shrink"`
	DatabaseFree  int64              `json:"database_free" doc:"of those, what the next records take"`
}

// freedJSON is what goes of one app's past.
type freedJSON struct {
	App        daeploy.AppName    `json:"app" doc:"the app"`
	Builds     []daeploy.BuildID  `json:"builds" doc:"array of builds, each with its record, log and image"`
	Images     []daeploy.ImageRef `json:"images" doc:"array of images, also of builds whose records stay"`
	ImageBytes int64              `json:"image_bytes" doc:"what the builds had added to them, as layers; their unpacked files take about as much again"`
	LogBytes   int64              `json:"log_bytes" doc:"of the logs"`
	CacheBytes int64              `json:"cache_bytes" doc:"of the package cache"`
	GitBytes   int64              `json:"git_bytes" doc:"of the repository; with dry_run about"`
	Left       string             `json:"left" doc:"what stays for now, and why"`
}

// versionJSON is the daemon's version.
type versionJSON struct {
	Version string `json:"version" doc:"of the daemon, \"0.1.0\""`
}

// errorJSON goes to stderr when a command with --json fails.
type errorJSON struct {
	Error errorBody `json:"error"`
}

type errorBody struct {
	Code    string `json:"code" doc:"stable, for scripts"`
	Message string `json:"message" doc:"what happened, and why"`
	Hint    string `json:"hint" doc:"the next action, or \"\""`
}

// buildJSON adds where a build that waits stands. Another app's build has no name
// for a key that may not read that app (F63).
func (s *session) buildJSON(b *daeploy.Build) buildJSON {
	j := newBuildJSON(b, s.Now())
	if b.Status != daeploy.StatusQueued {
		return j
	}
	p := s.Builds.Position(b.ID)
	j.Position = p.Number
	switch {
	case p.Draining:
		j.WaitsFor = "undrain"
	case p.Behind.App != "" && s.actor.MayRead(p.Behind.App):
		j.WaitsFor = p.Behind.String()
	}
	return j
}

func newBuildJSON(b *daeploy.Build, now time.Time) buildJSON {
	steps := make([]stepJSON, len(b.Steps))
	for i, st := range b.Steps {
		steps[i] = stepJSON{st.Name, stamp(st.Started), seconds(st.Duration), st.Detail}
	}
	other := func(number uint64) string {
		if number == 0 {
			return ""
		}
		return daeploy.BuildID{App: b.ID.App, Number: number}.String()
	}
	return buildJSON{
		ID: b.ID, App: b.ID.App, Number: b.ID.Number,
		Status: b.Status, Reason: b.Reason, Message: b.Message, Hint: b.Hint, ExitCode: b.ExitCode,
		Commit: b.Commit, Subject: b.Subject, Branch: daeploy.BranchName(b.Ref), Forced: b.Forced, By: b.By, RebuildOf: other(b.RebuildOf),
		Builder: b.Builder, BuilderDigest: b.BuilderDigest, Image: b.Image, ImageDigest: b.ImageDigest,
		Incremental: b.Incremental, Clean: b.Clean, Reused: other(b.Reused),
		Queued: stamp(b.Queued), Started: stamp(b.Started), Ended: stamp(b.Ended),
		Duration: seconds(b.Duration(now)), Steps: steps, Publication: newPublication(b.Publication),
	}
}

func newPublication(p daeploy.Publication) *publicationJSON {
	if p.Status == daeploy.PublicationNone {
		return nil
	}
	return &publicationJSON{
		Status: p.Status, Names: append([]daeploy.ImageRef{}, p.Names...), Digest: p.Digest, SBOM: p.SBOM, Provenance: p.Provenance, Attempts: p.Attempts,
		Reason: p.Code, Message: p.Message, Hint: p.Hint, Since: stamp(p.Since), Next: stamp(p.Next), Ended: stamp(p.Ended),
	}
}

// stamp makes a time that has not come null.
func stamp(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func seconds(d time.Duration) float64 { return math.Round(d.Seconds()*1000) / 1000 }

// printJSON writes v as data.
func (s *session) printJSON(v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	_, err := s.out.Write(escapeUnsafe(b.Bytes()))
	return err
}

// printEach writes an array as printJSON would, and holds one element at a time. The
// first error ends it, in the middle of the array.
func (s *session) printEach(list iter.Seq2[any, error]) error {
	out, before := bufio.NewWriter(s.out), "["
	for v, err := range list {
		if err != nil {
			return errors.Join(err, out.Flush())
		}
		if _, err := fmt.Fprintf(out, "%s\n  %s", before, indentedJSON(v, "  ")); err != nil {
			return err
		}
		before = ","
	}
	end := "\n]\n"
	if before == "[" {
		end = "[]\n"
	}
	if _, err := out.WriteString(end); err != nil {
		return err
	}
	return out.Flush()
}

// indentedJSON is a part of what printJSON would print, below prefix. The value
// can always be encoded.
func indentedJSON(v any, prefix string) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent(prefix, "  ")
	if err := enc.Encode(v); err != nil {
		panic(err)
	}
	return escapeUnsafe(bytes.TrimSuffix(b.Bytes(), []byte("\n")))
}

// oneLineJSON is for values that always can be encoded.
func oneLineJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return append(escapeUnsafe(b), '\n')
}

// escapeUnsafe writes what a terminal might act on as \u escapes. Encoded JSON
// has such characters only inside strings, where the escape means the same.
func escapeUnsafe(encoded []byte) []byte {
	var b strings.Builder
	for _, r := range string(encoded) {
		switch {
		case r == '\n' || !unsafe(r):
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return []byte(b.String())
}
