package test_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/daeploy/daeploy/container/containertest"
)

// load imports an archive by the front door.
func (s *suite) load(archive []byte) error {
	cmd := exec.Command(program, "--socket", s.path("daeploy.sock"), "builders", "import", "-")
	cmd.Stdin = bytes.NewReader(archive)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("import: %w\n%s", err, out)
	}
	return nil
}

func file(path, text string) containertest.File   { return containertest.File{Path: path, Content: text} }
func script(path, text string) containertest.File { return containertest.Script(path, text) }
func link(path, target string) containertest.File {
	return containertest.File{Path: path, Link: target}
}

// repository is an app's, at the pusher's.
type repository struct {
	c   *trial
	s   *suite
	app string
	dir string
}

// app makes a repository of files; builder is the fixture that its .daeploy
// names, "" for no such file.
func (c *trial) app(builder string, files ...containertest.File) *repository {
	c.Helper()
	c.apps++
	r := &repository{c: c, s: c.suite, app: fmt.Sprintf("%s-%d", c.name, c.apps)}
	r.dir = c.suite.path("apps", r.app)
	if builder != "" {
		// First, so that a case that brings a file of its own wins.
		files = slices.Insert(files, 0, r.daeploy(builder, ""))
	}
	c.must(os.MkdirAll(r.dir, 0o755))
	r.git("init", "-q")
	r.write(files...)
	return r
}

// daeploy is a .daeploy file that names a fixture; more follows that line.
func (r *repository) daeploy(builder, more string) containertest.File {
	r.c.Helper()
	name := builder
	if !strings.Contains(name, "/") {
		name = r.c.image(builder)
	}
	return file(".daeploy", fmt.Sprintf("builder = %q\n%s", name, more))
}

// write makes regular files and links; a file with an exec bit gets it.
func (r *repository) write(files ...containertest.File) {
	r.c.Helper()
	for _, f := range files {
		name := filepath.Join(r.dir, f.Path)
		r.c.must(os.MkdirAll(filepath.Dir(name), 0o755))
		if f.Link != "" {
			r.c.must(os.Symlink(f.Link, name))
			continue
		}
		mode := os.FileMode(0o644)
		if f.Mode&0o111 != 0 {
			mode = 0o755
		}
		r.c.must(os.WriteFile(name, []byte(f.Content), mode))
	}
}

func (r *repository) remove(names ...string) {
	r.c.Helper()
	for _, name := range names {
		r.c.must(os.RemoveAll(filepath.Join(r.dir, name)))
	}
}

// commitTime is when every commit of the suite was made.
const commitTime = "Wed Jul 22 13:34:51 2026 +0530"

func (r *repository) command(words ...string) *exec.Cmd {
	cmd := exec.Command("git", append([]string{"-C", r.dir}, words...)...)
	cmd.Env = append(os.Environ(), "GIT_SSH_COMMAND=ssh "+strings.Join(r.s.sshArgs("anna"), " "), "LC_ALL=C",
		"GIT_CONFIG_GLOBAL="+r.s.path(".gitconfig"), "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_DATE="+commitTime, "GIT_COMMITTER_DATE="+commitTime)
	return cmd
}

// git runs git there, which must succeed, and gives what it printed.
func (r *repository) git(words ...string) string {
	r.c.Helper()
	out, err := r.command(words...).Output()
	if err != nil {
		r.c.Fatalf("git %s: %v", words, err)
	}
	return strings.TrimSpace(string(out))
}

// commit commits all there is.
func (r *repository) commit(message string) {
	r.c.Helper()
	r.git("add", "-A")
	r.git("commit", "-q", "--allow-empty", "-m", message)
}

// built is what came of a push.
type built struct {
	*repository
	said    string // what the pusher read
	id      string // "" if there is no record
	Status  string
	Reason  string
	Message string
	Image   string
	Number  uint64
	Commit  string

	ExitCode    int `json:"exit_code"`
	Incremental bool
	Clean       string // why not
}

// push commits all there is and pushes main with flags.
func (r *repository) push(flags ...string) *built {
	r.c.Helper()
	r.commit("a commit")
	return r.pushed("main", flags...)
}

// pushed pushes a ref as it is.
func (r *repository) pushed(ref string, flags ...string) *built {
	r.c.Helper()
	said, err := r.command(slices.Concat([]string{"push"}, flags, []string{r.s.url(r.app), ref})...).CombinedOutput()
	b := &built{repository: r, said: string(said)}
	text, wrong := r.s.ask("build", r.app, "--json")
	if wrong != nil {
		return b
	}
	r.c.must(json.Unmarshal([]byte(text), b))
	b.id = fmt.Sprintf("%s/%d", r.app, b.Number)
	if (err == nil) != (b.Status == "succeeded") {
		r.c.Errorf("%s: push ends with %v, but the build %s", b.id, err, b.Status)
	}
	return b
}

// starts pushes in the background, until the log has a pattern.
func (r *repository) starts(pattern string) (end func() *built) {
	r.c.Helper()
	r.commit("a commit")
	push := r.command("push", r.s.url(r.app), "main")
	var said bytes.Buffer
	push.Stdout, push.Stderr = &said, &said
	push.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	r.c.must(push.Start())
	r.c.must(within(patience, func() error {
		text, err := r.s.ask("logs", r.app)
		if err == nil && !regexp.MustCompile(pattern).MatchString(text) {
			err = fmt.Errorf("no %q in the log of %s:\n%s", pattern, r.app, text)
		}
		return err
	}))
	return func() *built {
		r.c.Helper()
		_ = push.Wait() // the record tells how it ended
		b := &built{repository: r, said: said.String(), id: r.app + "/1"}
		text, err := r.s.ask("build", r.app, "--json")
		r.c.must(err)
		r.c.must(json.Unmarshal([]byte(text), b))
		return b
	}
}

// succeeds ends the trial unless the build did, and gives its image.
func (b *built) succeeds() *picture {
	b.c.Helper()
	if b.Status != "succeeded" {
		b.c.Fatalf("%s is %q by %q, want succeeded:\n%s", b.id, b.Status, b.Reason, b.said)
	}
	p, err := b.s.look(b.Image)
	b.c.must(err)
	p.c = b.c
	return p
}

// fails wants a reason code of section 11, and says words to the pusher.
func (b *built) fails(code string, words ...string) *built {
	b.c.Helper()
	if b.Status != "failed" || b.Reason != code {
		b.c.Errorf("%s is %q by %q, want failed by %q:\n%s", b.id, b.Status, b.Reason, code, b.said)
	}
	return b.says(words...)
}

// refuses is fails for what ends before any script has started.
func (b *built) refuses(code string, words ...string) *built {
	b.c.Helper()
	b.silent("> assemble")
	return b.fails(code, words...)
}

// log is what the build said, as one line: where lines break is not asked.
func (b *built) log() string {
	b.c.Helper()
	text, err := b.s.ask("logs", b.id)
	if err != nil {
		return b.said
	}
	return strings.Join(strings.Fields(text), " ")
}

// says wants all of words in the log.
func (b *built) says(words ...string) *built {
	b.c.Helper()
	text := b.log()
	for _, w := range words {
		if !strings.Contains(text, w) {
			b.c.Errorf("%s does not say %q:\n%s", b.id, w, b.said)
		}
	}
	return b
}

// silent wants none of words in the log.
func (b *built) silent(words ...string) *built {
	b.c.Helper()
	text := b.log()
	for _, w := range words {
		if strings.Contains(text, w) {
			b.c.Errorf("%s says %q:\n%s", b.id, w, b.said)
		}
	}
	return b
}

// raw is the script's output, byte for byte.
func (b *built) raw() string {
	b.c.Helper()
	text, err := b.s.ask("logs", b.id, "--raw")
	b.c.must(err)
	return text
}

// started runs the app's image, as `run` does, and gives what it prints.
func (b *built) started(words ...string) string {
	b.c.Helper()
	if len(words) > 0 {
		words = append([]string{"--"}, words...)
	}
	out, err := b.s.ask(append([]string{"run", b.id}, words...)...)
	if err != nil {
		b.c.Errorf("run %s: %v", b.id, err)
	}
	return out
}
