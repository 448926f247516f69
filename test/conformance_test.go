package test_test

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/daeploy/daeploy/container/containertest"
)

// conformanceCase is a case of section 13 of the contract, C1 to C53.
type conformanceCase struct {
	number int
	about  string // what is built
	rules  string // "S1 S31-S33"
	parts  []part
}

func (c conformanceCase) name() string { return fmt.Sprintf("C%d", c.number) }

// part is what a case promises of one image and source.
type part struct {
	name string
	try  func(*trial)
}

// conformanceCases lists all cases in order.
func conformanceCases() []conformanceCase {
	return slices.Concat(layoutCases, scriptCases, runCases, environmentCases, sourceCases, artifactCases, outputCases, limitCases, runtimeCases, controlCases)
}

// TestConformance does the cases C1 to C53 on the built program with real git,
// ssh and containerd, and prints what came of each (S151, S152). A part that is pending may
// fail, and has to: one that holds is to be taken off the list.
func TestConformance(t *testing.T) {
	s := newSuite(t, t, "", "")
	var mu sync.Mutex
	results := map[string]string{}
	t.Run("case", func(t *testing.T) {
		for _, c := range conformanceCases() {
			t.Run(c.name(), func(t *testing.T) {
				t.Parallel()
				for _, p := range c.parts {
					name := c.name() + "/" + p.name
					t.Run(p.name, func(t *testing.T) {
						t.Parallel()
						defer func() {
							mu.Lock()
							defer mu.Unlock()
							results[name] = verdictOf(t)
						}()
						p.run(t, s, name)
					})
				}
			})
		}
	})
	if err := within(5*time.Second, s.residue); err != nil {
		t.Error(err)
	}
	t.Logf("\n%s", resultTable(results))
}

var notInNames = regexp.MustCompile("[^a-z0-9]+")

// appName makes the name of a part one that an app may have.
func appName(part string) string { return notInNames.ReplaceAllString(strings.ToLower(part), "-") }

func verdictOf(t *testing.T) string {
	switch {
	case t.Failed():
		return "FAIL"
	case t.Skipped():
		return "not yet"
	}
	return "pass"
}

// resultTable shows the parts that ran, a case in a row.
func resultTable(results map[string]string) string {
	var out strings.Builder
	for _, c := range conformanceCases() {
		count := map[string][]string{}
		for _, p := range c.parts {
			if v := results[c.name()+"/"+p.name]; v != "" {
				count[v] = append(count[v], p.name)
			}
		}
		if len(count) == 0 {
			continue
		}
		fmt.Fprintf(&out, "%-4s %-44s", c.name(), c.rules)
		for _, v := range []string{"pass", "not yet", "FAIL"} {
			if len(count[v]) > 0 {
				fmt.Fprintf(&out, "  %s: %s", v, strings.Join(count[v], ", "))
			}
		}
		out.WriteByte('\n')
	}
	return out.String()
}

// run tries the part and holds it against the list of pending ones.
func (p part) run(t *testing.T, s *suite, name string) {
	c := &trial{T: t, suite: s, name: appName(name), pending: pending[name]}
	p.try(c)
	switch {
	case c.pending == "":
	case len(c.faults) == 0:
		t.Errorf("%s holds: take it off the list of pending parts", name)
	default:
		c.giveUp()
	}
}

// trial is one part on its way. It is a testing.TB whose failures count only if
// the part is not pending.
type trial struct {
	*testing.T
	suite   *suite
	name    string // fit for an app's name
	apps    int    // made so far
	pending string // why the part cannot hold yet, "" if it must
	faults  []string
}

func (c *trial) giveUp() {
	c.Skipf("not yet: %s\n%s", c.pending, strings.Join(c.faults, "\n"))
}

// Errorf notes a fault.
func (c *trial) Errorf(format string, args ...any) {
	c.Helper()
	if c.pending == "" {
		c.T.Errorf(format, args...)
		return
	}
	c.faults = append(c.faults, fmt.Sprintf(format, args...))
}

// Fatalf notes a fault after which nothing can be tried.
func (c *trial) Fatalf(format string, args ...any) {
	c.Helper()
	c.Errorf(format, args...)
	if c.pending != "" {
		c.giveUp()
	}
	c.FailNow()
}

// Fatal is Fatalf for what has words of its own.
func (c *trial) Fatal(args ...any) {
	c.Helper()
	c.Fatalf("%s", fmt.Sprintln(args...))
}

// must ends the trial at an error.
func (c *trial) must(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

// suite is a daemon with the fixture images of S151, imported when first used.
// It may be used by trials at the same time.
type suite struct {
	*story
	config string // what serve is told
	mu     sync.Mutex
	images map[string]func() error
}

// newSuite starts a daemon that ends with t; top and more are keys before the
// first and tables after the last table of its configuration.
func newSuite(t *testing.T, fatal testing.TB, top, more string) *suite {
	t.Helper()
	s := &suite{story: newStory(fatal, t.TempDir()), images: map[string]func() error{}}
	s.builders, s.defaultBuilder = true, imageName("b1")
	// The cases are about what a build does; each push is to be one.
	s.config = "reuse_images = false\npublic_address = \"deploy.example.org:2222\"\n" + top + more
	git := "[user]\nname = Anna\nemail = anna@example.org\n[init]\ndefaultBranch = main\n[advice]\ndetachedHead = false\n"
	for file, text := range map[string]string{s.path("ca.pem"): "the operator's certificates\n", s.path(".gitconfig"): git} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			fatal.Fatal(err)
		}
	}
	if err := s.makeKey("anna"); err != nil {
		fatal.Fatal(err)
	}
	t.Cleanup(s.close)
	if err := s.serve(s.config); err != nil {
		fatal.Fatal(err)
	}
	if _, err := s.ask("keys", "add", "anna", s.path("key-anna.pub"), "--admin"); err != nil {
		fatal.Fatal(err)
	}
	return s
}

// with goes on with a daemon of this trial's own.
func (c *trial) with(top, more string) {
	c.Helper()
	c.suite = newSuite(c.T, c, top, more)
}

// image imports a fixture unless it is there, and gives its name.
func (c *trial) image(name string) string {
	c.Helper()
	fixture, ok := fixtures[name]
	if !ok {
		c.Fatalf("no fixture %q", name)
	}
	c.suite.mu.Lock()
	do, known := c.suite.images[name]
	if !known {
		do = sync.OnceValue(func() error {
			image := fixture(c)
			image.Name = imageName(name)
			return c.suite.load(containertest.Archive(c.T, image))
		})
		c.suite.images[name] = do
	}
	c.suite.mu.Unlock()
	c.must(do())
	return imageName(name)
}

// imported brings in an image of this trial alone.
func (c *trial) imported(image containertest.Image) string {
	c.Helper()
	image.Name = imageName(c.name)
	c.must(c.suite.load(containertest.Archive(c.T, image)))
	return image.Name
}

func imageName(name string) string { return "daeploy.local/builders/" + name + ":1" }
