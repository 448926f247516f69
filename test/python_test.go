package test_test

import (
	"strings"
	"testing"
	"time"
)

// TestPython: the builder image that daeploy makes builds and runs apps of
// Daeploy's template layout, with hooks that install operating-system packages.
func TestPython(t *testing.T) {
	s := builderStory(t, "python")
	s.pushExample(t, "python-hello", "hello")
	if got := s.answer(t, "hello"); !strings.Contains(got, "Hello from daeploy") {
		t.Errorf("python-hello answers %q", got)
	}

	said := s.pushExample(t, "python-hooks", "hooks")
	for _, want := range []string{"> assemble   .s2i/bin/assemble (from your repository)", "| ---> installing figlet", "Setting up figlet"} {
		if !strings.Contains(said, want) {
			t.Errorf("the push of python-hooks does not say %q:\n%s", want, said)
		}
	}
	// figlet draws with these; plain text would have letters.
	if got := s.answer(t, "hooks"); !strings.Contains(got, "|_|") {
		t.Errorf("python-hooks answers %q, which figlet did not draw", got)
	}
	if err := within(5*time.Second, s.residue); err != nil {
		t.Error(err)
	}
}
