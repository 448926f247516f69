package test_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/daeploy/daeploy/container/containertest"
)

// TestScript runs the stories of script/. Their words, besides those of
// testscript itself:
//
//	serve [-c FILE]         start the daemon; FILE, with $NAMEs filled in, is added to its configuration;
//	                        keys of [network] must be the first table there
//	daemon WORD...          run the program itself, in the foreground; $DAEPLOY is its path
//	halt, kill9             end it politely, or at once ("stop" is testscript's own: it ends the story)
//	hangup                  send it SIGHUP, and wait until its log says what came of that
//	newhost                 go on where nothing is but the stock builder: no state, no images
//	flip FILE OFFSET        turn a bit of the byte there; below 0 from the end
//	containerd own|stop|start
//	admin, key, stranger NAME [FLAG...]   make a key pair; add it, or not
//	as NAME COMMAND...      use that key; the default is the first one made
//	builder IMAGE CONFIG [DIR]  bring in a builder with the stock scripts, or the files of DIR; CONFIG is JSON
//	app DIR                 make a git repository of the files there
//	write DIR FILE LINE...  write a file; commit DIR MESSAGE commits all
//	git DIR ARG...          run git there
//	push [FLAG...] [DIR:]APP REFSPEC... [&NAME&]
//	await NAME              wait for such a push or command; interrupt NAME ends it as Ctrl-C does
//	clone APP DIR, lsremote APP
//	ssh [>FILE] WORD... [&NAME&]  run a command of the daemon; code N is what it ended with
//	waitout NAME PATTERN    until such a command has printed it
//	quick SECONDS WORD...   the same, within that time
//	waitlog BUILD PATTERN   until the build's log has it
//	status BUILD STATUS, reason BUILD CODE [EXIT], latest APP N
//	failed BUILD CODE [EXIT]  the last push built and failed: one error and one hint, in record and log too; nothing moved
//	refused CODE            it was refused before a build: one error, one hint, an event with the code; nothing moved
//	remoteref APP BRANCH N|HEAD|none     where the branch is: at build N's commit, at the app's HEAD
//	ticks N                 stdout has the lines tick 1 to tick N, each once, in order
//	builderof IMAGE DIR     bring in a builder whose S2I scripts are the files of DIR
//	dropimage IMAGE         remove an image past the daemon
//	killtask BUILD          kill the build's task past the daemon
//	runtimes                import the runtime images full, bare and full-onbuild
//	imageconfig IMAGE       print the image's config and manifest, as containerd has them
//	registry start|stop|password|add|slow ...  a private registry: see doRegistry
//	published BUILD STATUS [N]  until the build's publication has that status, after N attempts
//	web DIR                 serve DIR by HTTP as $WEB; /moved/N/PATH redirects N times to PATH, /out/PATH to another host
//	scrape [PATTERN]        print /metrics, which must be as Prometheus wants it, once it has the pattern
//	probe PATH STATUS       print the answer of /livez or /readyz; $METRICS is the address
//	receiver start|answers|ids ...  a receiver of webhooks: see doReceiver
//	received PATTERN        wait until it was sent that
//	githost start|stop      git repositories elsewhere: see doGithost
//	residue                 nothing is left of any build but images, records, logs and pins (P4)
//	laid APP                wait until the app's source is laid out for its next build; laid-now does not wait
//	shows ROW 'DONE: HAPPENED'   what docs/faults-report.md says of a row of the fault matrix
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "script", RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			s := newStory(env.T().(testing.TB), env.WorkDir)
			env.Values["story"] = &teller{story: s}
			config := filepath.Join(env.WorkDir, ".gitconfig")
			env.Setenv("GIT_CONFIG_GLOBAL", config)
			env.Setenv("GIT_CONFIG_NOSYSTEM", "1")
			env.Setenv("LC_ALL", "C")
			env.Setenv("DAEPLOY", program)
			env.Setenv("SECRETS", s.secrets)
			env.Setenv("DAEPLOY_SOCKET", s.path("daeploy.sock"))
			env.Defer(s.close)
			return os.WriteFile(config, []byte("[user]\nname = Anna\nemail = anna@example.org\n[init]\ndefaultBranch = main\n[protocol \"file\"]\nallow = always\n"), 0o600)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"serve": told((*teller).doServe), "halt": told((*teller).doHalt), "kill9": told((*teller).doKill9),
			"hangup":     told((*teller).doHangup),
			"containerd": told((*teller).doContainerd), "builder": told((*teller).doBuilder), "daemon": told((*teller).doDaemon),
			"admin": told((*teller).doAdmin), "key": told((*teller).doKey), "stranger": told((*teller).doStranger),
			"as": told((*teller).doAs), "app": told((*teller).doApp), "write": told((*teller).doWrite), "commit": told((*teller).doCommit),
			"git": told((*teller).doGit), "push": told((*teller).doPush), "await": told((*teller).doAwait),
			"interrupt": told((*teller).doInterrupt), "clone": told((*teller).doClone), "lsremote": told((*teller).doLsremote),
			"ssh": told((*teller).doSSH), "code": told((*teller).doCode), "quick": told((*teller).doQuick), "waitlog": told((*teller).doWaitlog), "waitout": told((*teller).doWaitout),
			"failed": told((*teller).doFailed), "refused": told((*teller).doRefused),
			"status": told((*teller).doStatus), "reason": told((*teller).doReason), "latest": told((*teller).doLatest),
			"remoteref": told((*teller).doRemoteref), "ticks": told((*teller).doTicks), "killtask": told((*teller).doKilltask),
			"residue": told((*teller).doResidue), "laid": told((*teller).doLaid), "laid-now": told((*teller).doLaidNow), "shows": told((*teller).doShows), "imageconfig": told((*teller).doImageconfig),
			"registry": told((*teller).doRegistry), "published": told((*teller).doPublished),
			"githost":   told((*teller).doGithost),
			"builderof": told((*teller).doBuilderof), "dropimage": told((*teller).doDropimage), "runtimes": told((*teller).doRuntimes),
			"web": told((*teller).doWeb), "scrape": told((*teller).doScrape), "probe": told((*teller).doProbe),
			"newhost": told((*teller).doNewhost), "flip": told((*teller).doFlip),
			"receiver": told((*teller).doReceiver), "received": told((*teller).doReceived),
		},
	})
}

var hangupLine = regexp.MustCompile(`msg="(config reloaded|configuration refused)`)

// teller does the words of one story.
type teller struct {
	*story
	ts   *testscript.TestScript
	who  string
	code int
	held *atomic.Bool // set when the registry that holds has something to hold
	last pushed       // the last push that was begun, and has ended
	away bool         // containerd is
}

// told makes a testscript command of a method. A command that can be expected
// to fail (!) gives its error; others fail the story with it.
func told(do func(*teller, []string) error) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		t := ts.Value("story").(*teller)
		t.ts = ts
		err := do(t, args)
		switch {
		case err != nil && !neg:
			text, _ := os.ReadFile(t.path("daemon.log"))
			ts.Logf("the daemon's log:\n%s", text)
			ts.Fatalf("%v", err)
		case err == nil && neg:
			ts.Fatalf("unexpected success")
		}
	}
}

// exec runs a program whose output the story can look at.
func (t *teller) exec(name string, args ...string) error {
	err := t.ts.Exec(name, args...)
	t.code = 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		t.code = exit.ExitCode()
	}
	return err
}

func (t *teller) doServe(args []string) error {
	more := ""
	if len(args) == 2 && args[0] == "-c" {
		more = os.Expand(t.ts.ReadFile(args[1]), t.ts.Getenv)
	}
	err := t.serve(more)
	t.ts.Setenv("METRICS", t.metrics)
	return err
}

func (t *teller) doHalt([]string) error  { return t.end(syscall.SIGTERM) }
func (t *teller) doKill9([]string) error { return t.end(syscall.SIGKILL) }

func (t *teller) doHangup([]string) error {
	before, err := os.ReadFile(t.path("daemon.log"))
	if err != nil {
		return err
	}
	if err := t.daemon.Process.Signal(syscall.SIGHUP); err != nil {
		return err
	}
	return within(20*time.Second, func() error {
		text, err := os.ReadFile(t.path("daemon.log"))
		if err == nil && !hangupLine.Match(text[len(before):]) {
			err = errors.New("the log does not say what came of SIGHUP")
		}
		return err
	})
}

func (t *teller) doNewhost([]string) error {
	archive := t.path("builder.tar")
	if _, err := t.ctr("images", "export", archive, t.defaultBuilder); err != nil {
		return err
	}
	t.moves++
	_, err := t.ctr("images", "import", "--all-platforms", archive)
	return errors.Join(err, os.Rename(t.path("state"), t.path(fmt.Sprintf("state.%d", t.moves))))
}

func (t *teller) doFlip(args []string) error {
	name := t.ts.MkAbs(args[0])
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	at, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	text[(at+len(text))%len(text)] ^= 1
	return os.WriteFile(name, text, 0o600)
}

func (t *teller) doContainerd(args []string) (err error) {
	switch args[0] {
	case "own":
		t.containerd, err = containertest.Launch()
		t.private = err == nil
		return err
	case "stop":
		t.away = true
		return t.containerd.Kill()
	case "start":
		t.away = false
		return t.containerd.Revive()
	}
	return fmt.Errorf("containerd %s?", args[0])
}

func (t *teller) doDaemon(args []string) error { return t.exec(program, args...) }

func (t *teller) doStranger(args []string) error {
	if t.who == "" {
		t.who = args[0]
	}
	return t.makeKey(args[0])
}

func (t *teller) doKey(args []string) error {
	if err := t.doStranger(args[:1]); err != nil {
		return err
	}
	_, err := t.ask(append([]string{"keys", "add", args[0], t.path("key-" + args[0] + ".pub")}, args[1:]...)...)
	return err
}

func (t *teller) doAdmin(args []string) error { return t.doKey(append(args, "--admin")) }

func (t *teller) doAs(args []string) error {
	before := t.who
	defer func() { t.who = before }()
	t.who = args[0]
	switch args[1] {
	case "push":
		return t.doPush(args[2:])
	case "ssh":
		return t.doSSH(args[2:])
	case "clone":
		return t.doClone(args[2:])
	}
	return fmt.Errorf("as %s?", args[1])
}

func (t *teller) doApp(args []string) error {
	dir := t.path(args[0])
	return errors.Join(t.exec("git", "init", "-q", dir), t.doCommit([]string{args[0], "first"}))
}

func (t *teller) doWrite(args []string) error {
	name := t.path(args[0], args[1])
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return os.WriteFile(name, []byte(strings.Join(args[2:], "\n")+"\n"), 0o755)
}

func (t *teller) doCommit(args []string) error {
	dir := t.path(args[0])
	return errors.Join(t.exec("git", "-C", dir, "add", "-A"), t.exec("git", "-C", dir, "commit", "-q", "-m", args[1]))
}

func (t *teller) doGit(args []string) error {
	return t.exec("git", append([]string{"-C", t.path(args[0])}, args[1:]...)...)
}

func (t *teller) doSSH(args []string) error {
	name := ""
	if last := args[len(args)-1]; strings.HasPrefix(last, "&") {
		name, args = strings.Trim(last, "&"), args[:len(args)-1]
	}
	file, redirected := strings.CutPrefix(args[0], ">")
	if redirected {
		args = args[1:]
	}
	words := slices.Concat(t.sshArgs(t.who), []string{"daeploy@127.0.0.1"}, args)
	switch {
	case name != "":
		return t.start(name, exec.Command("ssh", words...))
	case redirected:
		return t.exec("sh", slices.Concat([]string{"-c", `exec ssh "$@" >"$0"`, t.path(file)}, words)...)
	}
	return t.exec("ssh", words...)
}

// doQuick allows three times the time that is promised: other tests use the CPU too.
func (t *teller) doQuick(args []string) error {
	seconds, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	began, most := time.Now(), 3*time.Duration(seconds)*time.Second
	if err := t.doSSH(args[1:]); err != nil {
		return err
	}
	took := time.Since(began)
	t.ts.Logf("[%s took %.2fs]", strings.Join(args[1:], " "), took.Seconds())
	if took > most {
		return fmt.Errorf("%s took %s, more than %s", strings.Join(args[1:], " "), took, most)
	}
	return nil
}

func (t *teller) doCode(args []string) error {
	if want, err := strconv.Atoi(args[0]); err != nil || want != t.code {
		return fmt.Errorf("exit code %d, want %s", t.code, args[0])
	}
	return nil
}

func (t *teller) doWaitout(args []string) error {
	pattern, err := regexp.Compile(args[1])
	if err != nil {
		return err
	}
	return within(30*time.Second, func() error {
		if f := t.background[args[0]]; f == nil || !pattern.MatchString(f.out.String()+f.err.String()) {
			return fmt.Errorf("%q has not printed %q", args[0], args[1])
		}
		return nil
	})
}

func (t *teller) doWaitlog(args []string) error {
	pattern, err := regexp.Compile(args[1])
	if err != nil {
		return err
	}
	return within(30*time.Second, func() error {
		text, err := t.ask("logs", args[0])
		if err == nil && !pattern.MatchString(text) {
			err = fmt.Errorf("the log of %s has no %q:\n%s", args[0], args[1], text)
		}
		return err
	})
}

// build reads a record as scripts do.
func (t *teller) build(id string) (b struct {
	Status, Reason, Commit, Message, Hint string
	ExitCode                              int `json:"exit_code"`
}, err error,
) {
	text, err := t.ask("build", id, "--json")
	if err != nil {
		return b, err
	}
	return b, json.Unmarshal([]byte(text), &b)
}

func (t *teller) doStatus(args []string) error {
	b, err := t.build(args[0])
	if err == nil && b.Status != args[1] {
		err = fmt.Errorf("%s is %s (%s), want %s", args[0], b.Status, b.Reason, args[1])
	}
	return err
}

func (t *teller) doReason(args []string) error {
	b, err := t.build(args[0])
	if err == nil && (b.Status != "failed" || b.Reason != args[1]) {
		err = fmt.Errorf("%s is %s by %q, want failed by %q", args[0], b.Status, b.Reason, args[1])
	}
	if err == nil && len(args) > 2 && strconv.Itoa(b.ExitCode) != args[2] {
		err = fmt.Errorf("%s has exit code %d, want %s", args[0], b.ExitCode, args[2])
	}
	return err
}

func (t *teller) doLatest(args []string) error {
	name := "daeploy.local/" + args[0]
	text, err := t.ctr("images", "list", "name=="+name+":latest", "name=="+name+":"+args[1])
	if err != nil {
		return err
	}
	digests := regexp.MustCompile(`sha256:[0-9a-f]{64}`).FindAllString(text, -1)
	if len(digests) != 2 || digests[0] != digests[1] {
		return fmt.Errorf("latest is not build %s:\n%s", args[1], text)
	}
	return nil
}

func (t *teller) doRemoteref(args []string) error {
	want := ""
	switch args[2] {
	case "none":
	case "HEAD":
		out, err := exec.Command("git", "-C", t.path(args[0]), "rev-parse", "HEAD").Output()
		if err != nil {
			return err
		}
		want = strings.TrimSpace(string(out))
	default:
		b, err := t.build(args[0] + "/" + args[2])
		if err != nil {
			return err
		}
		want = b.Commit
	}
	out, _ := exec.Command("git", "--git-dir", t.path("state/repositories", args[0]+".git"), "rev-parse", "--verify", "-q", "refs/heads/"+args[1]).Output()
	if got := strings.TrimSpace(string(out)); got != want {
		return fmt.Errorf("%s of %s is at %q, want %q", args[1], args[0], got, want)
	}
	return nil
}
