package test_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// useKey tells git which key to show.
func (t *teller) useKey() {
	t.ts.Setenv("GIT_SSH_COMMAND", "ssh "+strings.Join(t.sshArgs(t.who), " "))
}

func (t *teller) doPush(args []string) error {
	name := ""
	if last := args[len(args)-1]; strings.HasPrefix(last, "&") {
		name, args = strings.Trim(last, "&"), args[:len(args)-1]
	}
	at := 0
	for ; strings.HasPrefix(args[at], "-"); at++ {
		if args[at] == "-o" {
			at++
		}
	}
	dir, app, ok := strings.Cut(args[at], ":")
	if !ok {
		app = dir
	}
	if _, err := os.Stat(t.path(dir, ".git")); err != nil {
		dir = "blog"
	}
	t.useKey()
	words := slices.Concat([]string{"-C", t.path(dir), "push"}, args[:at], []string{t.url(app)}, args[at+1:])
	t.last = pushed{app: app}
	t.last.before, t.last.err = t.standing(app)
	if name == "" {
		err := t.exec("git", words...)
		t.last.said = t.ts.ReadFile("stderr")
		return err
	}
	return t.start(name, exec.Command("git", words...))
}

// start runs a program in the background, under a name to await it by.
func (t *teller) start(name string, cmd *exec.Cmd) error {
	f := &followed{cmd: cmd}
	cmd.Stdout, cmd.Stderr = &f.out, &f.err
	cmd.Env = append(os.Environ(), "GIT_SSH_COMMAND="+t.ts.Getenv("GIT_SSH_COMMAND"), "GIT_CONFIG_GLOBAL="+t.ts.Getenv("GIT_CONFIG_GLOBAL"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	t.background[name] = f
	return cmd.Start()
}

// doAwait shows the output of a program in the background as if it had run now.
func (t *teller) doAwait(args []string) error {
	f := t.background[args[0]]
	if f == nil {
		return fmt.Errorf("no %q in the background", args[0])
	}
	delete(t.background, args[0])
	done := make(chan struct{})
	go func() {
		_ = f.cmd.Wait() // its ProcessState tells
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(60 * time.Second):
		_ = syscall.Kill(-f.cmd.Process.Pid, syscall.SIGKILL) // the error says that it hung
		<-done
		return fmt.Errorf("%q does not end:\n%s", args[0], f.err.String())
	}
	if err := errors.Join(os.WriteFile(t.path("await.out"), []byte(f.out.String()), 0o600), os.WriteFile(t.path("await.err"), []byte(f.err.String()), 0o600)); err != nil {
		return err
	}
	t.last.said = f.err.String()
	return t.exec("sh", "-c", fmt.Sprintf("cat %s; cat %s >&2; exit %d", t.path("await.out"), t.path("await.err"), f.cmd.ProcessState.ExitCode()))
}

func (t *teller) doInterrupt(args []string) error {
	f := t.background[args[0]]
	if err := syscall.Kill(-f.cmd.Process.Pid, syscall.SIGINT); err != nil {
		return err
	}
	if err := t.doAwait(args); err == nil {
		return errors.New("what was interrupted succeeded")
	}
	return nil
}

func (t *teller) doClone(args []string) error {
	t.useKey()
	return t.exec("git", "clone", "-q", t.url(args[0]), t.path(args[1]))
}

func (t *teller) doLsremote(args []string) error {
	t.useKey()
	return t.exec("git", "ls-remote", t.url(args[0]))
}
