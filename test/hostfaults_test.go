package test_test

import (
	"bytes"
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
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy/container/containertest"
)

// hostFault is a bad state of a host, brought about for real. Daemon, doctor and
// init tell it by the same sentence and the same hint: a row of docs/operate.md.
type hostFault struct {
	name  string
	bring func(*patient)
	exit  int    // of what cannot work: the daemon, if it ends, and init
	runs  bool   // the daemon runs on: its log has the sentence
	code  string // stable
}

const containerdAway, badHost, later = 69, 78, 75 // exit statuses

var hostFaults = []hostFault{
	{"no containerd", (*patient).noContainerd, containerdAway, true, "containerd_unavailable"},
	{"a containerd that hangs", (*patient).silentSocket, containerdAway, true, "containerd_unavailable"},
	{"containerd below 1.6.20", func(p *patient) { p.impostor("1.4.13") }, badHost, true, "containerd_version"},
	{"containerd 2.1.0", func(p *patient) { p.impostor("v2.1.0") }, badHost, true, "containerd_version"},
	{"the socket of another runtime, for Kubernetes only", func(p *patient) { p.impostor("") }, badHost, true, "containerd_socket"},
	{"the socket of a web API, such as Docker's", (*patient).webSocket, badHost, true, "containerd_socket"},
	{"the socket of something else", (*patient).rudeSocket, badHost, true, "containerd_socket"},
	{"cgroup v1 without a controller", (*patient).cgroups1, badHost, true, "host_unfit"},
	{"cgroup v2 without a controller", (*patient).cgroups2, badHost, true, "host_unfit"},
	{"the port is taken", (*patient).takenPort, badHost, false, "listen_failed"},
	{"state on a read-only disk", (*patient).readOnly, badHost, false, "state_dir"},
	{"state on a full disk, at the first start", (*patient).fullAtFirst, later, false, "disk_full"},
	{"state on a full disk, later", (*patient).fullLater, later, true, "disk_full"},
	{"state of another owner", (*patient).foreign, badHost, false, "state_dir"},
	{"state that others can write", (*patient).open, badHost, false, "state_dir"},
	{"state that is a file", (*patient).file, badHost, false, "state_dir"},
	{"unknown key in the configuration", func(p *patient) { p.more = "max_bilds = 3\n" }, badHost, false, "config_invalid"},
	{"impossible value in the configuration", func(p *patient) { p.more = "max_builds = 0\n" }, badHost, false, "config_invalid"},
	{"no configuration where one is named", (*patient).noConfig, badHost, false, "config_unreadable"},
	{"a second daemon with the same state", (*patient).second, later, false, "state_locked"},
	{"the database is gone", (*patient).noDatabase, badHost, false, "database_refused"},
	{"the database of a newer daeploy", (*patient).newerDatabase, badHost, false, "database_refused"},
	{"the host key is open to others", (*patient).openKey, badHost, false, "host_key"},
	{"the host key is gone", (*patient).noKey, badHost, false, "host_key"},
	{"the clock is years off", (*patient).clock, badHost, true, "clock_off"},
	{"no git", func(p *patient) { p.env = []string{"PATH=" + p.path("bin")} }, badHost, false, "git_unusable"},
	{"git below 2.34", (*patient).oldGit, badHost, false, "git_unusable"},
}

// TestHostFaults: each fault has one exit status, sentence and hint, wherever it is
// met, and they are those of docs/operate.md (F43, F56, F104, F118, F119, F122, F123,
// F127).
func TestHostFaults(t *testing.T) {
	rows := make([]string, len(hostFaults))
	t.Run("faults", func(t *testing.T) {
		for i, fault := range hostFaults {
			t.Run(fault.name, func(t *testing.T) {
				p := newPatient(t)
				fault.bring(p)
				rows[i] = p.suffer(fault)
			})
		}
	})
	if t.Failed() || slices.Contains(rows, "") {
		return // what was not asked for cannot be compared
	}
	const alike = "; journal, doctor and init give one exit status, sentence and command"
	t.Attr("F43", "no git, and git 2.30, at the start: no start"+alike)
	t.Attr("F56", "a host key that is gone, and one that others can read: no start"+alike)
	t.Attr("F102", "a second daemon with the same state: it ends with 75 and names the first one's process"+alike)
	t.Attr("F104", "containerd away, hanging, 1.4, 2.1.0, or another program at its socket; no controller of memory, with cgroup v1 and v2: the daemon runs on"+alike)
	t.Attr("F118", "a database that was written two years from now: the daemon runs on, and tells of the clock"+alike)
	t.Attr("F119", "a database that is gone, and one of a newer schema: no start, nothing is made anew"+alike)
	t.Attr("F122", "state on a read-only disk, on a full one, and on one that became full: no start, no start, and the daemon runs on"+alike)
	t.Attr("F123", "a state directory of another owner, that others can write, that is a file: no start"+alike)
	t.Attr("F127", "an unknown key, an impossible value, no file: no start"+alike)
	comparePart(t, "../docs/operate.md", "host faults", "| what is wrong | the daemon | `init` | sentence | what mends it |\n|---|---|---|---|---|\n"+strings.Join(rows, "\n"))
}

// TestCgroup2: of the kernel's own version 2, with a list of the controllers that this
// host may have elsewhere, doctor finds nothing wrong.
func TestCgroup2(t *testing.T) {
	p := newPatient(t)
	p.must(os.WriteFile(p.path("controllers"), []byte("cpuset cpu io memory pids\n"), 0o600))
	p.inside("mount -t cgroup2 cgroup2 /sys/fs/cgroup && mount --bind " + p.path("controllers") + " /sys/fs/cgroup/cgroup.controllers")
	p.configure()
	findings, _ := p.examine()
	for _, f := range findings {
		if f.Check == "cgroups" && f.State == "ok" && f.Message == "version 2" {
			return
		}
	}
	t.Errorf("doctor finds %+v; want cgroups of version 2", findings)
}

// comparePart wants a part of a page, between two comments, to be as made from tests,
// or writes it with -update.
func comparePart(t *testing.T, file, part, want string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := fmt.Sprintf("<!-- %s: made by %s -->\n", part, t.Name()), fmt.Sprintf("\n<!-- end of %s -->", part)
	before, rest, ok := strings.Cut(string(text), begin)
	got, after, closed := strings.Cut(rest, end)
	switch {
	case !ok || !closed:
		t.Fatalf("%s has no part %q", file, part)
	case got == want:
	case *update:
		if err := os.WriteFile(file, []byte(before+begin+want+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s is old; write it anew with -update (-page +tests):\n%s", file, cmp.Diff(got, want))
	}
}

// patient is a host with something wrong.
type patient struct {
	testing.TB
	work       string
	state      string
	containerd string   // address
	ssh        string   // address
	more       string   // of the configuration
	env        []string // of all programs, besides the usual
	before     []string // words before each program
	known      []string // pairs: what is different in each run, and its name on the page
}

func newPatient(t testing.TB) *patient {
	p := &patient{TB: t, work: t.TempDir(), containerd: shared.Address, ssh: "127.0.0.1:0"}
	p.state = p.path("state")
	p.must(os.Mkdir(p.path("bin"), 0o755))
	return p
}

func (p *patient) path(name string) string { return filepath.Join(p.work, name) }

func (p *patient) must(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

// configure writes the configuration, unless the fault is that there is none.
func (p *patient) configure() {
	text := fmt.Sprintf("%s\nstate_dir = %q\nsocket = %q\nssh_addr = %q\nsecrets_dir = %q\ncontainerd = %q\nnamespace = %q\ndisk_reserve = \"1KiB\"\n",
		strings.TrimSuffix(p.more, "\n"), p.state, p.path("daeploy.sock"), p.ssh, containertest.TmpfsDir(p), p.containerd, shared.Namespace+"-faults")
	p.must(os.WriteFile(p.path("daeploy.toml"), []byte(text), 0o600))
}

func (p *patient) command(words ...string) *exec.Cmd {
	words = slices.Concat(p.before, []string{program}, words)
	cmd := exec.CommandContext(p.Context(), words[0], words[1:]...)
	cmd.Env = append(os.Environ(), p.env...)
	return cmd
}

// sentence is what one of the three says of a fault.
type sentence struct{ Code, Message, Hint string }

// suffer asks the three, and gives the row of the page.
func (p *patient) suffer(f hostFault) string {
	if p.more != missing {
		p.configure()
	}
	daemon := p.daemon(f)
	doctor, exit := p.doctor(f)
	init := p.init(f)
	for who, got := range map[string]sentence{"doctor": doctor, "init": init} {
		if p.plain(got.Message) != p.plain(daemon.Message) || got.Hint != daemon.Hint { // but for the second
			p.Errorf("%s and the daemon differ (-daemon +%s):\n%s", who, who, cmp.Diff(daemon, got))
		}
	}
	if doctor.Code != f.code || exit != f.exit {
		p.Errorf("doctor --json says %s, exit status %d; want %s, %d", doctor.Code, exit, f.code, f.exit)
	}
	if daemon.Message == "" || daemon.Hint == "" {
		p.Errorf("the daemon says %+v", daemon)
	}
	ends := "runs on"
	if !f.runs {
		ends = "ends, " + strconv.Itoa(f.exit)
	}
	cell := strings.NewReplacer("|", `\|`)
	return fmt.Sprintf("| %s | %s | %d | %s | %s |", f.name, ends, f.exit, cell.Replace(p.plain(daemon.Message)), cell.Replace(p.plain(daemon.Hint)))
}

var (
	saidLine = regexp.MustCompile(`(?m)^error: (.*)\nhint: (.*)$`)
	fitLine  = regexp.MustCompile(`msg="host is not fit" check=(?:"[^"]*"|\S+) err=("(?:[^"\\]|\\.)*") hint=("(?:[^"\\]|\\.)*"|\S+)`)
)

// daemon runs serve. If it is to run on, it does so until the test ends.
func (p *patient) daemon(f hostFault) (said sentence) {
	p.Helper()
	var out lockedBuffer
	cmd := p.command("serve", "--config", p.path("daeploy.toml"))
	cmd.Stdout, cmd.Stderr = &out, &out
	p.must(cmd.Start())
	gone := make(chan struct{})
	go func() {
		_ = cmd.Wait() // its ProcessState tells
		close(gone)
	}()
	if !f.runs {
		select {
		case <-gone:
		case <-time.After(30 * time.Second):
			p.Fatalf("the daemon does not end:\n%s", &out)
		}
		found := saidLine.FindStringSubmatch(out.String())
		if code := cmd.ProcessState.ExitCode(); code != f.exit || found == nil {
			p.Fatalf("the daemon ended with status %d; want %d:\n%s", code, f.exit, &out)
		}
		return sentence{Message: found[1], Hint: found[2]}
	}
	p.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			p.Error(err)
		}
		<-gone
	})
	p.must(within(30*time.Second, func() error {
		text := out.String()
		found := fitLine.FindStringSubmatch(text)
		if found == nil || !strings.Contains(text, "msg=ready") {
			return fmt.Errorf("the daemon says:\n%s", text)
		}
		said = sentence{Message: unquoted(found[1]), Hint: unquoted(found[2])}
		return nil
	}))
	return said
}

func unquoted(text string) string {
	if plain, err := strconv.Unquote(text); err == nil {
		return plain
	}
	return text
}

// doctor gives the finding of the fault, which is the first failure but for the
// daemon that is away, and the exit status that it foretells.
func (p *patient) doctor(f hostFault) (said sentence, exit int) {
	p.Helper()
	findings, status := p.examine()
	if status != 1 {
		p.Errorf("doctor ends with status %d; want 1", status)
	}
	for _, finding := range findings {
		if finding.State == "fail" && (f.runs || finding.Check != "daemon") {
			return finding.sentence, finding.Exit
		}
	}
	p.Fatalf("doctor finds nothing wrong: %+v", findings)
	return said, 0
}

// finding is one of doctor --json.
type finding struct {
	sentence
	Check, State string
	Exit         int `json:"exit_code"`
}

// examine gives all that doctor finds, and its exit status.
func (p *patient) examine() (findings []finding, status int) {
	p.Helper()
	cmd := p.command("--socket", p.path("daeploy.sock"), "doctor", "--json", "--config", p.path("daeploy.toml"))
	out, err := cmd.Output()
	if json.Unmarshal(out, &findings) != nil {
		p.Fatalf("doctor: %v\n%s", err, out)
	}
	return findings, cmd.ProcessState.ExitCode()
}

func (p *patient) init(f hostFault) sentence {
	p.Helper()
	var out bytes.Buffer
	cmd := p.command("--socket", p.path("daeploy.sock"), "init", "--config", p.path("daeploy.toml"), "--builder", "", "--key", "-")
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	found := saidLine.FindStringSubmatch(out.String())
	if code := cmd.ProcessState.ExitCode(); code != f.exit || found == nil {
		p.Fatalf("init: %v; want exit status %d\n%s", err, f.exit, &out)
	}
	return sentence{Message: found[1], Hint: found[2]}
}

// plain puts in place of what is this test's own what it is on a usual host.
func (p *patient) plain(text string) string {
	pairs := slices.Concat(p.known, []string{
		p.path("state"), "/var/lib/daeploy", p.path("daeploy.toml"), "/etc/daeploy/daeploy.toml",
		p.path("containerd.sock"), "/run/containerd/containerd.sock", p.work, "/var/lib",
	})
	text = regexp.MustCompile(`known here: .*`).ReplaceAllString(text, "known here: ...")
	return regexp.MustCompile(`[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]+Z`).ReplaceAllString(strings.NewReplacer(pairs...).Replace(text), "...")
}
