package test_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestBashCompletion sources what the program prints and asks it as bash does
// at a TAB. What the package bash-completion brings is played by five lines.
func TestBashCompletion(t *testing.T) {
	bin := t.TempDir()
	if err := os.Symlink(program, filepath.Join(bin, "daeploy")); err != nil {
		t.Fatal(err)
	}
	const script = `
_init_completion() {
	words=("${COMP_WORDS[@]}") cword=$COMP_CWORD
	cur=${words[cword]} prev=${words[cword-1]}
}
compopt() { :; }
source <(daeploy completion bash)
COMP_WORDS=(daeploy "$@") COMP_CWORD=$#
COMP_LINE="daeploy $*" COMP_POINT=${#COMP_LINE} COMP_TYPE=9
__start_daeploy
printf '%s\n' "${COMPREPLY[@]%% *}"`
	for typed, want := range map[string]string{
		"ke": "keys", "keys re": "remove", "backu": "backup", "drain --no": "--no-wait", "config ": "check",
	} {
		cmd := exec.Command("bash", append([]string{"-c", script, "bash"}, strings.Split(typed, " ")...)...)
		cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != want {
			t.Errorf("after %q: %q (%v), want %q", typed, out, err, want)
		}
	}
}

// TestCompletionScripts: all three shells get one, and others are told which.
func TestCompletionScripts(t *testing.T) {
	for shell, sign := range map[string]string{"bash": "__start_daeploy", "zsh": "#compdef daeploy", "fish": "complete -c daeploy"} {
		out, err := exec.Command(program, "completion", shell).CombinedOutput()
		if err != nil || !strings.Contains(string(out), sign) || !strings.Contains(string(out), "__complete") {
			t.Errorf("%s: %v, and the script has no %q", shell, err, sign)
		}
	}
	if out, err := exec.Command(program, "completion", "tcsh").CombinedOutput(); err == nil || !strings.Contains(string(out), "shells: bash, zsh, fish") {
		t.Errorf("tcsh: %v, %s", err, out)
	}
}
