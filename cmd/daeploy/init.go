package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/control"
	"github.com/daeploy/daeploy/gitreceive"
	"github.com/daeploy/daeploy/store"
	"github.com/daeploy/daeploy/systemd"
)

// setup is `daeploy init`: the way from an installed package to a host that takes
// pushes, in steps that find out whether they were done before.
type setup struct {
	control.Init
	socket string
	std    streams
	status control.Status // of the daemon, once it answers
}

func initHost(ctx context.Context, socket string, words []string, std streams) error {
	flags := flag.NewFlagSet("init", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	s := setup{socket: socket, std: std}
	s.Declare(flags)
	if err := flags.Parse(words); err != nil || flags.NArg() > 0 {
		message := "init takes flags only"
		if err != nil {
			message = err.Error()
		}
		return &daeploy.Error{Kind: daeploy.Usage, Code: "usage", Message: message, Hint: "daeploy help init"}
	}
	if os.Geteuid() != 0 {
		return &daeploy.Error{Kind: daeploy.Denied, Code: "denied", Message: "init changes this host and wants root", Hint: "sudo daeploy init"}
	}
	for _, step := range []struct {
		name string
		do   func(context.Context) (string, error)
	}{
		{"service", s.service}, {"host", s.host}, {"host key", s.hostKey}, {"admin key", s.adminKey}, {"builder", s.builder}, {"test build", s.testBuild},
	} {
		said, err := step.do(ctx)
		if err != nil {
			return err
		}
		fmt.Fprintf(std.out, "%-11s %s\n", step.name, said)
	}
	fmt.Fprintf(std.out, "\nIn a repository of yours:\n  git remote add daeploy %s/APP\n  git push daeploy main\n", s.status.URL)
	return nil
}

// query has the daemon run a command with --json and reads its answer into v,
// which may be nil.
func (s *setup) query(ctx context.Context, v any, input string, words ...string) error {
	var out, said strings.Builder
	code, err := ask(ctx, s.socket, append(words, "--json"), strings.NewReader(input), streams{in: s.std.in, out: &out, err: &said})
	if err != nil {
		return err
	}
	if code != 0 && said.Len() > 0 { // doctor has an answer also when it is 1
		var refused struct {
			Error struct{ Code, Message, Hint string }
		}
		if err := json.Unmarshal([]byte(said.String()), &refused); err != nil {
			return fmt.Errorf("%s: exit %d: %s", strings.Join(words, " "), code, said.String())
		}
		return &daeploy.Error{Kind: daeploy.KindOfExit(code), Code: refused.Error.Code, Message: refused.Error.Message, Hint: refused.Error.Hint}
	}
	if v == nil {
		return nil
	}
	return json.Unmarshal([]byte(out.String()), v)
}

// service makes sure that a daemon answers. Where systemd runs, its units are
// started, now and at each boot.
func (s *setup) service(ctx context.Context) (string, error) {
	how, err := "is running", refusing(ctx, s.socket)
	if err == nil {
		err = s.query(ctx, &s.status, "", "status")
	}
	if daeploy.KindOf(err) == daeploy.Unavailable {
		err = s.awaitStart(ctx, err)
	}
	if daeploy.KindOf(err) == daeploy.Unavailable {
		how = "started, and enabled for each boot"
		err = s.start(ctx)
	}
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s, version %s, ssh on %s", how, s.status.Version, s.status.SSH), nil
}

// awaitStart waits for a daemon that has its state and does not answer yet, as long
// as it takes, and asks it again. Without one it gives away, why none has answered.
func (s *setup) awaitStart(ctx context.Context, away error) error {
	c, err := readConfig(s.Config)
	if err != nil {
		return away // which is found again, and told
	}
	told := false
	for {
		held := store.CheckupLock(c.StateDir)
		if held.State != daeploy.FindingWarn {
			if told {
				return s.query(ctx, &s.status, "", "status")
			}
			return away
		}
		if !told {
			fmt.Fprintln(s.std.err, control.Clean(held.Message)+"; waiting for it")
			told = true
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// start has systemd start the units, if nothing keeps the daemon from that.
func (s *setup) start(ctx context.Context) error {
	if err := s.startable(ctx); err != nil {
		return err
	}
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return &daeploy.Error{
			Kind: daeploy.Unavailable, Code: "daemon_away", Message: "no daemon answers at " + s.socket + ", and there is no systemd to start it",
			Hint: "start it, as root:  daeploy serve",
		}
	}
	doors, err := systemd.AskDoors(ctx)
	if err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, "systemctl", append([]string{"enable", "--now"}, units(doors)...)...).CombinedOutput(); err != nil {
		return &daeploy.Error{
			Kind: daeploy.Failure, Code: "service_failed", Message: "the service does not start: " + strings.TrimSpace(string(out)),
			Hint: "journalctl -u daeploy", Err: err,
		}
	}
	// The unit counts as started when the daemon has said that it is ready.
	return s.query(ctx, &s.status, "", "status")
}

// units are those to start. A socket that the operator has masked is named to systemctl
// by the service's Also= only, which passes it over.
func units(doors systemd.Doors) []string {
	if doors.Masked {
		return []string{"daeploy.service"}
	}
	return []string{"daeploy.socket", "daeploy.service"}
}

// startable finds what would keep the service from starting: its own words would be
// in the journal only.
func (s *setup) startable(ctx context.Context) error {
	_, findings := away{file: s.Config}.start(ctx)
	for _, f := range findings {
		if f.State == daeploy.FindingFail {
			return unfit(f)
		}
	}
	return nil
}

// host is what doctor says of this one.
func (s *setup) host(ctx context.Context) (string, error) {
	var findings []struct {
		daeploy.Finding
		Code string
		Exit int `json:"exit_code"`
	}
	if err := s.query(ctx, &findings, "", "doctor"); err != nil {
		return "", err
	}
	warnings := 0
	for _, f := range findings {
		switch f.State {
		case daeploy.FindingFail:
			f.Err = &daeploy.Error{Kind: daeploy.KindOfExit(f.Exit), Code: f.Code}
			return "", unfit(f.Finding)
		case daeploy.FindingWarn:
			warnings++
		}
	}
	if warnings > 0 {
		return fmt.Sprintf("fit, with %d warnings; see them:  daeploy doctor", warnings), nil
	}
	return "fit", nil
}

// unfit is a failure that doctor found, as the error of this command: its words are
// for the operator already.
func unfit(f daeploy.Finding) error {
	return &daeploy.Error{Kind: f.Err.Kind, Code: f.Err.Code, Message: f.Message, Hint: f.Hint}
}

func (s *setup) hostKey(context.Context) (string, error) { return s.status.HostKey, nil }

// adminKey lets the first admin in, or the one with the key that was named: that it
// is done is told by the key itself, never by its name.
func (s *setup) adminKey(ctx context.Context) (string, error) {
	var keys []daeploy.Key
	if err := s.query(ctx, &keys, "", "keys", "list"); err != nil {
		return "", err
	}
	if i := slices.IndexFunc(keys, func(k daeploy.Key) bool { return k.Admin }); i >= 0 && s.Key == "" {
		return keys[i].Name + " is an admin already", nil
	}
	text, err := s.keyText()
	if err != nil {
		return "", err
	}
	key, err := gitreceive.ParseKey([]byte(text))
	if err != nil {
		return "", err
	}
	if i := slices.IndexFunc(keys, func(k daeploy.Key) bool { return k.ID == key.ID }); i >= 0 {
		known := keys[i].Name
		if keys[i].Admin {
			return known + " is an admin already", nil
		}
		return "", &daeploy.Error{
			Kind: daeploy.Failure, Code: "key_exists", Message: fmt.Sprintf("this key is here already, under the name %s, and is no admin's", known),
			Hint: "daeploy keys remove " + known + ", and then this command again",
		}
	}
	name := cmp.Or(s.Name, invoker().Username)
	err = s.query(ctx, nil, text, "keys", "add", name, "--admin")
	if taken, ok := errors.AsType[*daeploy.Error](err); ok && taken.Code == "key_exists" { // by another key, as we know here
		taken.Hint = fmt.Sprintf("daeploy init --key %s --name NAME, with a name that no key has; or first:  daeploy keys remove %s", cmp.Or(s.Key, "FILE"), name)
	}
	if err != nil {
		return "", err
	}
	return name + " is an admin now", nil
}

// keyText is the public key that is to be the admin's: from a file, from standard
// input, or one that the person at the terminal has chosen.
func (s *setup) keyText() (string, error) {
	switch s.Key {
	case "-":
		text, err := io.ReadAll(io.LimitReader(s.std.in, 64<<10+1))
		return string(text), err
	case "":
	default:
		text, err := os.ReadFile(s.Key)
		if err != nil {
			return "", &daeploy.Error{Kind: daeploy.Failure, Code: "file_unreadable", Message: err.Error(), Hint: "name a public key, as in ~/.ssh/id_ed25519.pub"}
		}
		return string(text), nil
	}
	none := &daeploy.Error{
		Kind: daeploy.Usage, Code: "key_missing", Message: "there is no admin yet, and no key to make one",
		Hint: "daeploy init --key FILE, with the public key of whoever is to be admin",
	}
	candidates := authorized(invoker().HomeDir)
	if len(candidates) == 0 || !term.IsTerminal(int(s.std.in.Fd())) {
		return "", none
	}
	in := bufio.NewReader(s.std.in)
	for _, c := range candidates {
		fmt.Fprintf(s.std.err, "Make an admin of the key %s %+q? [y/N] ", c.id, c.comment)
		answer, err := in.ReadString('\n')
		if err != nil {
			return "", none
		}
		if word := strings.ToLower(strings.TrimSpace(answer)); word == "y" || word == "yes" {
			return c.line, nil
		}
	}
	return "", none
}

// invoker is who typed the command: the user behind sudo, if there is one.
func invoker() *user.User {
	if name := os.Getenv("SUDO_USER"); name != "" {
		if u, err := user.Lookup(name); err == nil {
			return u
		}
	}
	if u, err := user.Current(); err == nil {
		return u
	}
	return &user.User{Username: "admin", HomeDir: "/root"}
}

// candidate is a key that may become the admin's.
type candidate struct {
	line, comment string
	id            daeploy.KeyID
}

// maxAuthorized is how much of authorized_keys is read, in bytes.
const maxAuthorized = 1 << 20

// authorized lists the keys that may log in to the host as a user, and that
// daeploy would take. The file is the user's and we are root: a FIFO or a device in its
// place keeps nobody waiting.
func authorized(home string) (found []candidate) {
	file, err := os.OpenFile(filepath.Join(home, ".ssh", "authorized_keys"), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil // no file, no keys
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(file, maxAuthorized))
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(text)) {
		if key, err := gitreceive.ParseKey([]byte(line)); err == nil {
			_, comment, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), key.Type+" "), " ")
			found = append(found, candidate{line, comment, key.ID})
		}
	}
	return found
}

// builder brings a builder in, unless there is one.
func (s *setup) builder(ctx context.Context) (string, error) {
	images, err := s.builders(ctx)
	if err != nil {
		return "", err
	}
	switch {
	case len(images) > 0:
		return strings.Join(images, ", "), nil
	case s.Builder == "":
		return "none; make one:  daeploy builders build DIR", nil
	}
	if _, err := os.Stat(s.Builder); err != nil {
		if strings.ContainsAny(s.Builder[:1], "/.") { // no image is called so
			return "", &daeploy.Error{
				Kind: daeploy.NotFound, Code: "recipe_missing", Message: "there is no recipe of a builder: " + err.Error(),
				Hint: "daeploy init --builder builders/python, in a checkout of daeploy; or --builder \"\" for none",
			}
		}
		if err := s.query(ctx, nil, "", "builders", "pull", s.Builder); err != nil {
			return "", err
		}
		return s.Builder, nil
	}
	fmt.Fprintf(s.std.err, "making a builder of %s, which takes a minute or two\n", s.Builder)
	if err := buildBuilder(ctx, s.socket, []string{s.Builder}, streams{in: s.std.in, out: io.Discard, err: s.std.err}); err != nil {
		return "", err
	}
	images, err = s.builders(ctx)
	return strings.Join(images, ", "), err
}

// builders lists the builder images that are here, by name.
func (s *setup) builders(ctx context.Context) (names []string, err error) {
	var list []struct{ Image string }
	err = s.query(ctx, &list, "", "builders", "list")
	for _, b := range list {
		names = append(names, b.Image)
	}
	return names, err
}
