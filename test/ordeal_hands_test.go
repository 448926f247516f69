package test_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/daeploy/daeploy/test/history"
)

// hand is somebody who does one thing after the other to an app, and writes down
// what he was answered.
type hand struct {
	k      *ordeal
	name   string
	app    string
	chance *rand.Rand
	does   func(*hand)
	ssh    []string // the words of ssh before the port
	prints int      // lines of its scripts; 0 = by chance, for about half a second

	line string // that its scripts do besides

	commit history.Entry // the newest, as a push of it is written down
	value  int           // that the variable got last
	newest int           // the highest number of a build that was told
}

// sideRef is a ref that builds nothing.
const sideRef = "refs/heads/side"

func (k *ordeal) newHand(app string, stream, seed uint64, does func(*hand)) *hand {
	args := k.sshArgs("anna")
	h := &hand{
		k: k, name: fmt.Sprintf("hand %d", stream), app: app, chance: rand.New(rand.NewPCG(seed, stream)), does: does,
		ssh: append(args[:len(args)-2], "-o", "ConnectTimeout=5"), // the port is another after each start
	}
	return h
}

// work goes on until over is closed; what has begun is done.
func (h *hand) work(over <-chan struct{}) {
	for {
		const breath = 100 * time.Millisecond
		time.Sleep(breath) // who is turned away at once does not use up the host
		h.k.gate.pass()
		select {
		case <-over:
			return
		default:
		}
		h.does(h)
	}
}

// push is what the one who writes the app does.
func (h *hand) push() {
	switch dice := h.chance.IntN(100); {
	case h.commit.Place == 0 || dice < 50:
		h.write(0)
		h.send(history.Push)
	case dice < 60:
		h.write(3)
		h.send(history.Push)
	case dice < 70:
		h.write(0)
		h.send(history.Detach, "-o", "detach")
	case dice < 80:
		h.send(history.Push) // once more
	case dice < 86:
		h.set(h.commit.Value, "HEAD:"+sideRef)
	case dice < 92:
		h.set("", ":"+sideRef)
	default:
		h.look()
	}
}

// assembleScript prints numbered lines for about half a second.
const assembleScript = `#!/bin/sh
i=0
while [ $i -lt %d ]; do
	i=$((i+1))
	echo tick $i
	sleep 0.025
done
%s
[ %d = 0 ] || exit %d
mkdir -p /app
cp -a /tmp/src/. /app/
`

// write makes the app's next commit, whose script ends with that status.
func (h *hand) write(exit int) {
	dir, place := h.k.path("work", h.app), h.commit.Place+1
	prints := 8 + h.chance.IntN(16)
	if h.prints > 0 {
		prints = h.prints
	}
	hook := filepath.Join(dir, ".s2i/bin/assemble")
	err := errors.Join(
		os.MkdirAll(filepath.Dir(hook), 0o755),
		os.WriteFile(hook, fmt.Appendf(nil, assembleScript, prints, h.line, exit, exit), 0o755),
		os.WriteFile(filepath.Join(dir, "a.txt"), fmt.Appendf(nil, "commit %d\n", place), 0o644),
	)
	if err != nil {
		h.k.Error(err)
	}
	for _, words := range [][]string{{"init", "-q", "-b", "main"}, {"add", "-A"}, {"commit", "-q", "-m", fmt.Sprintf("commit %d", place)}} {
		if words[0] == "init" && place > 1 {
			continue
		}
		if _, stderr, err := h.run("git", append([]string{"-C", dir}, words...)...); err != nil {
			h.k.Errorf("git %s: %v\n%s", words, err, stderr)
		}
	}
	head, stderr, err := h.run("git", "-C", dir, "rev-parse", "HEAD")
	if err != nil {
		h.k.Errorf("git rev-parse: %v\n%s", err, stderr)
	}
	h.commit = history.Entry{Who: h.name, App: h.app, Value: strings.TrimSpace(head), Place: place, Prints: prints, Exit: exit}
}

var (
	toldBuild  = regexp.MustCompile(`(?m)^remote: (?:daeploy \S+ - |success: )(\S+/[0-9]+) (?:- |is queued)`)
	toldTick   = regexp.MustCompile(`(?m)^remote:   \| tick ([0-9]+) *$`)
	rejection  = regexp.MustCompile(`(?m)^ ! \[(?:remote )?rejected\] .* \((.*)\)$`)
	turnedAway = regexp.MustCompile(`(?m)^(?:remote: )?error: (.*(?:containerd|wait|disk of).*)$`)
)

// send pushes the newest commit to the branch that builds.
func (h *hand) send(verb history.Verb, flags ...string) {
	e := h.commit
	if verb == history.Push {
		h.k.tries.Add(1)
	}
	e.Verb, e.Asked = verb, time.Now()
	stderr, err := h.git(slices.Concat([]string{"push"}, flags, []string{"URL", "HEAD:" + history.Main})...)
	if err == nil && strings.Contains(stderr, "Everything up-to-date") {
		h.k.record.Add(history.Entry{Asked: e.Asked, Who: h.name, Verb: history.Read, App: h.app, What: history.Main, Value: e.Value, Outcome: history.Done})
		return
	}
	e.Outcome, e.Text = outcomeOfPush(stderr, err)
	if m := toldBuild.FindStringSubmatch(stderr); m != nil {
		e.Build = m[1]
	}
	for _, m := range toldTick.FindAllStringSubmatch(stderr, -1) {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			h.k.Error(err)
		}
		e.Ticks = append(e.Ticks, n)
	}
	h.k.record.Add(e)
	if verb == history.Push && e.Outcome == history.Done {
		h.k.oks.Add(1)
	}
}

// set moves or deletes a ref that builds nothing.
func (h *hand) set(value, refspec string) {
	e := history.Entry{Asked: time.Now(), Who: h.name, Verb: history.Set, App: h.app, What: sideRef, Value: value}
	stderr, err := h.git("push", "--force", "URL", refspec)
	e.Outcome, e.Text = outcomeOfPush(stderr, err)
	h.k.record.Add(e)
}

func outcomeOfPush(stderr string, err error) (history.Outcome, string) {
	if err == nil {
		return history.Done, ""
	}
	for _, refusal := range []*regexp.Regexp{rejection, turnedAway} {
		if m := refusal.FindStringSubmatch(stderr); m != nil {
			return history.Refused, m[1]
		}
	}
	return history.Unknown, stderr
}

// look asks where the refs are.
func (h *hand) look() {
	asked := time.Now()
	out, err := h.git("ls-remote", "URL")
	if err != nil && strings.Contains(out, "there is no app") {
		out, err = "", nil // its first push was refused, or cut off
	}
	if err != nil {
		h.k.record.Add(history.Entry{Asked: asked, Who: h.name, Verb: history.Read, App: h.app, What: sideRef, Outcome: history.Unknown, Text: out})
		return
	}
	at := map[string]string{}
	for line := range strings.Lines(out) {
		commit, ref, _ := strings.Cut(strings.TrimSpace(line), "\t")
		at[ref] = commit
	}
	for _, ref := range []string{history.Main, sideRef} {
		h.k.record.Add(history.Entry{Asked: asked, Who: h.name, Verb: history.Read, App: h.app, What: ref, Value: at[ref], Outcome: history.Done})
	}
}

// meddle is what a colleague does meanwhile.
func (h *hand) meddle() {
	time.Sleep(time.Duration(h.chance.IntN(700)) * time.Millisecond)
	id := fmt.Sprintf("%s/%d", h.app, 1+h.chance.IntN(h.newest+1))
	switch dice := h.chance.IntN(100); {
	case dice < 12:
		h.list()
		var b history.Build
		newest := fmt.Sprintf("%s/%d", h.app, max(h.newest, 1))
		e := h.command(history.Entry{Verb: history.Cancel, Of: newest}, &b, "cancel", newest)
		e.Build, e.Text = b.ID, e.Text+b.Status
		h.k.record.Add(e)
	case dice < 30:
		var b history.Build
		e := h.command(history.Entry{Verb: history.Rebuild, Of: id}, &b, "rebuild", id)
		e.Build = b.ID
		h.k.record.Add(e)
	case dice < 45:
		h.value++
		e := history.Entry{Verb: history.Set, What: "env STEP", Value: strconv.Itoa(h.value)}
		h.k.record.Add(h.command(e, nil, "env", "set", h.app, "STEP="+e.Value))
	case dice < 50:
		h.k.record.Add(h.command(history.Entry{Verb: history.Set, What: "env STEP"}, nil, "env", "unset", h.app, "STEP"))
	case dice < 60:
		h.variable()
	case dice < 80:
		h.list()
	default:
		h.logs(id)
	}
}

func (h *hand) variable() {
	var list []struct{ Name, Value string }
	e := h.command(history.Entry{Verb: history.Read, What: "env STEP"}, &list, "env", h.app)
	for _, v := range list {
		if v.Name == "STEP" {
			e.Value = v.Value
		}
	}
	h.k.record.Add(e)
}

func (h *hand) list() {
	var builds []history.Build
	e := h.command(history.Entry{Verb: history.List}, &builds, "builds", h.app, "--limit", "10")
	for _, b := range builds {
		if n, err := strconv.Atoi(b.ID[len(h.app)+1:]); err == nil {
			h.newest = max(h.newest, n)
		}
	}
	e.Builds = builds
	h.k.record.Add(e)
}

func (h *hand) logs(id string) {
	var text json.RawMessage
	e := h.command(history.Entry{Verb: history.Logs, Build: id}, &text, "logs", id)
	if e.Outcome == history.Done {
		log, err := parseLog(string(text))
		if err != nil {
			h.k.Error(err)
		}
		e.Ticks = log.Ticks
	}
	h.k.record.Add(e)
}

// command runs one over ssh, and completes the entry with its answer.
func (h *hand) command(e history.Entry, to any, words ...string) history.Entry {
	e.Asked, e.Who, e.App = time.Now(), h.name, h.app
	port := h.k.gate.pass()
	stdout, stderr, err := h.run("ssh", slices.Concat(h.ssh, []string{"-p", port, "daeploy@127.0.0.1"}, words, []string{"--json"})...)
	exit, _ := errors.AsType[*exec.ExitError](err)
	switch {
	case err == nil:
		e.Outcome = history.Done
		if raw, ok := to.(*json.RawMessage); ok {
			*raw = json.RawMessage(stdout)
		} else if to != nil {
			if err := json.Unmarshal([]byte(stdout), to); err != nil {
				h.k.Errorf("%s answered %q: %v", words, stdout, err)
			}
		}
	case exit != nil && exit.ExitCode() != 255:
		e.Outcome, e.Text = history.Refused, stderr
	default:
		e.Outcome, e.Text = history.Unknown, stderr
	}
	return e
}

// git runs git in the app's working tree, with the daemon's address for URL, and
// gives what it prints.
func (h *hand) git(words ...string) (string, error) {
	port := h.k.gate.pass()
	for i, word := range words {
		if word == "URL" {
			words[i] = fmt.Sprintf("ssh://daeploy@127.0.0.1:%s/%s", port, h.app)
		}
	}
	args := append([]string{"-C", h.k.path("work", h.app), "-c", "core.sshCommand=ssh " + strings.Join(h.ssh, " ")}, words...)
	stdout, stderr, err := h.run("git", args...)
	return stdout + stderr, err
}

// run is bounded: nobody is to wait for ever, whatever dies.
func (h *hand) run(program string, words ...string) (stdout, stderr string, err error) {
	const most = 90 * time.Second
	ctx, cancel := context.WithTimeout(context.Background(), most)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, words...)
	cmd.Env = append(
		os.Environ(), "LC_ALL=C", "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=Anna", "GIT_AUTHOR_EMAIL=anna@example.org",
		"GIT_COMMITTER_NAME=Anna", "GIT_COMMITTER_EMAIL=anna@example.org",
	)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &errs, 5*time.Second
	err = cmd.Run()
	if ctx.Err() != nil {
		h.k.Errorf("%s %s does not end within %s:\n%s%s", program, strings.Join(words, " "), most, out.String(), errs.String())
	}
	return out.String(), errs.String(), err
}
