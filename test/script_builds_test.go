package test_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/daeploy/daeploy/container/containertest"
)

var tickLine = regexp.MustCompile(`(?m)^  \| tick ([0-9]+)$`)

func (t *teller) doTicks(args []string) error {
	want, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	found := tickLine.FindAllStringSubmatch(t.ts.ReadFile("stdout"), -1)
	for i, m := range found {
		if m[1] != strconv.Itoa(i+1) {
			return fmt.Errorf("line %d of the ticks is tick %s: a gap or a repetition", i+1, m[1])
		}
	}
	if len(found) != want {
		return fmt.Errorf("%d ticks, want %d", len(found), want)
	}
	return nil
}

func (t *teller) doKilltask(args []string) error {
	names, err := t.ctr("tasks", "list", "-q")
	if err != nil {
		return err
	}
	wanted := strings.ReplaceAll(args[0], "/", "-")
	for name := range strings.FieldsSeq(names) {
		if strings.HasSuffix(name, wanted) {
			_, err := t.ctr("tasks", "delete", "--force", name)
			return err
		}
	}
	return fmt.Errorf("no task of %s among %q", args[0], names)
}

// doBuilderof makes an image like the stock builder, with scripts of the story's own.
func (t *teller) doBuilderof(args []string) error {
	entries, err := os.ReadDir(t.path(args[1]))
	if err != nil {
		return err
	}
	var scripts []containertest.File
	for _, e := range entries {
		scripts = append(scripts, containertest.Script("usr/libexec/s2i/"+e.Name(), t.ts.ReadFile(filepath.Join(args[1], e.Name()))))
	}
	image := stockBuilder()
	image.Name, image.Layers = args[0], [][]containertest.File{scripts}
	return t.importImage(image)
}

func (t *teller) doDropimage(args []string) error {
	_, err := t.ctr("images", "rm", "--sync", args[0])
	return err
}

func (t *teller) doImageconfig(args []string) error {
	text, err := t.imageConfig(args[0])
	if err != nil {
		return err
	}
	if err := os.WriteFile(t.path("config.json"), text, 0o600); err != nil {
		return err
	}
	return t.exec("cat", t.path("config.json"))
}

func (t *teller) doResidue([]string) error {
	t.Attr("after", "nothing is left")
	return within(5*time.Second, t.residue)
}

// doShows says of a row of the fault matrix what the story did and what happened.
func (t *teller) doShows(args []string) error {
	if len(args) != 2 || !strings.Contains(args[1], ": ") {
		return errors.New("usage: shows ROW 'what was done: what happened'")
	}
	t.Attr(args[0], args[1])
	return nil
}
