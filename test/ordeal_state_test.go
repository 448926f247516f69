package test_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/daeploy/daeploy/test/history"
)

// askJSON asks the daemon for data.
func (s *story) askJSON(to any, words ...string) error {
	text, err := s.ask(append(words, "--json")...)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(text), to)
}

func (k *ordeal) builds(words ...string) (list []history.Build, err error) {
	return list, k.askJSON(&list, append([]string{"builds", "--limit", "0"}, words...)...)
}

// findings are what doctor does not like, but for what differs from one moment to
// the next.
func (k *ordeal) findings() (found map[string]bool, err error) {
	var list []struct{ Check, State, Message string }
	if err := k.askJSON(&list, "doctor"); err != nil {
		return nil, err
	}
	found = map[string]bool{}
	for _, f := range list {
		if f.State != "ok" {
			found[f.Check+" "+f.State] = true
		}
	}
	return found, nil
}

// newFindings are those that doctor did not have at first.
func (k *ordeal) newFindings() (found []string) {
	k.Helper()
	all, err := k.findings()
	if err != nil {
		k.Error(err)
	}
	for finding := range all {
		if !k.doctor[finding] {
			found = append(found, finding)
		}
	}
	return found
}

// state is what there is, as commands tell it; of refs, as git does.
func (k *ordeal) state() *history.State {
	s := &history.State{Apps: map[string]history.App{}}
	if err := k.endShims(); err != nil {
		k.Error(err)
	}
	if err := within(5*time.Second, k.residue); err != nil {
		s.Residue = err.Error()
	}
	s.Doctor = k.newFindings()
	var apps []struct{ Name string }
	if err := k.askJSON(&apps, "apps"); err != nil {
		k.Error(err)
	}
	for _, app := range apps {
		a, err := k.app(app.Name)
		if err != nil {
			k.Error(err)
		}
		s.Apps[app.Name] = a
	}
	return s
}

// endShims ends the shims that containerd 1.6 has kept, and knows nothing of, with the
// bundles of builds that could not start for that reason: they are no residue of ours.
func (k *ordeal) endShims() error {
	all, err := k.builds()
	for _, b := range all {
		if b.Reason != "containerd_stuck" {
			continue
		}
		if pid, none := k.shimOf(strings.ReplaceAll(b.ID, "/", "-")); none == nil {
			err = errors.Join(err, syscall.Kill(pid, syscall.SIGKILL))
		}
	}
	return err
}

func (k *ordeal) app(name string) (a history.App, err error) {
	a.Registers, a.Logs = map[string]string{}, map[string]history.Log{}
	if a.Builds, err = k.builds(name); err != nil {
		return a, err
	}
	for _, b := range a.Builds {
		if a.Logs[b.ID], err = k.log(b.ID); err != nil {
			return a, err
		}
	}
	var variables []struct{ Name, Value string }
	err = errors.Join(
		k.askJSON(&a.Events, "events", name, "--limit", "0", "--kind", "build.queued,build.started,build.succeeded,build.failed,build.canceled,build.superseded,build.interrupted"),
		k.askJSON(&a.Images, "images", name),
		k.askJSON(&variables, "env", name),
	)
	for _, v := range variables {
		a.Registers["env "+v.Name] = v.Value
	}
	out, giterr := exec.Command("git", "--git-dir", k.path("state/repositories", name+".git"), "for-each-ref", "--format=%(refname) %(objectname)").Output()
	for line := range strings.Lines(string(out)) {
		ref, commit, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, is := strings.CutPrefix(ref, "refs/daeploy/builds/"); is {
			a.Pins = append(a.Pins, name+"/"+n)
			if i := slices.IndexFunc(a.Builds, func(b history.Build) bool { return b.ID == name+"/"+n }); i >= 0 && a.Builds[i].Commit != commit {
				err = errors.Join(err, fmt.Errorf("%s pins %s, the build is of %s", ref, commit, a.Builds[i].Commit))
			}
			continue
		}
		a.Registers[ref] = commit
	}
	return a, errors.Join(err, giterr)
}

// log reads what is checked of a build's log.
func (k *ordeal) log(id string) (history.Log, error) {
	text, err := k.ask("logs", id, "--json")
	if err != nil {
		return history.Log{}, err
	}
	return parseLog(text)
}

var numbered = regexp.MustCompile(`^tick ([0-9]+)$`)

func parseLog(text string) (log history.Log, err error) {
	for line := range strings.Lines(text) {
		var l struct{ Stream, Text string }
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			return log, fmt.Errorf("%w in %q", err, line)
		}
		m := numbered.FindStringSubmatch(l.Text)
		switch {
		case l.Stream == "app" && m != nil:
			n, err := strconv.Atoi(m[1])
			if err != nil {
				return log, err
			}
			log.Ticks = append(log.Ticks, n)
		case l.Stream == "daeploy" && (strings.HasPrefix(l.Text, "success: ") || strings.HasPrefix(l.Text, "error: ")):
			log.Ends = append(log.Ends, l.Text)
		}
	}
	return log, nil
}
