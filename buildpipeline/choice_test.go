package buildpipeline_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/buildpipeline"
)

// TestDetect: S167.
func TestDetect(t *testing.T) {
	builder := func(name, digest, detect string) daeploy.Image {
		config, err := json.Marshal(map[string]any{"config": map[string]any{"Labels": map[string]string{"io.daeploy.detect": detect}}})
		if err != nil {
			t.Fatal(err)
		}
		return daeploy.Image{Ref: daeploy.ImageRef("daeploy.local/builders/" + name), Digest: digest, Config: config}
	}
	several := []daeploy.Image{
		builder("go:1", "g", "go.mod"), builder("node:18", "n", " package.json  yarn.lock "),
		builder("python:3.11", "p", "requirements.txt pyproject.toml"), builder("quiet:1", "q", ""),
	}
	var many []daeploy.Image
	for i := range 12 {
		many = append(many, builder(fmt.Sprintf("b%02d:1", i), fmt.Sprint(i), "many"))
	}
	for _, test := range []struct {
		name   string
		images []daeploy.Image
		files  string // blank-separated; "name@" is a link, "name/" a submodule
		order  []daeploy.ImageRef
		want   string // "IMAGE FILE"
		fault  string // sentence and hint
	}{
		{name: "one fits", images: several, files: "a.txt package.json", want: "daeploy.local/builders/node:18 package.json"},
		{name: "the first name of the label tells", images: several, files: "pyproject.toml requirements.txt", want: "daeploy.local/builders/python:3.11 requirements.txt"},
		{name: "below the root is nothing", images: several, files: "web/package.json", fault: "none of its builders fits this tree|available: daeploy.local/builders/go:1, daeploy.local/builders/node:18, daeploy.local/builders/python:3.11, daeploy.local/builders/quiet:1"},
		{name: "only plain files", images: several, files: "go.mod@ package.json/", fault: "none of its builders fits"},
		{name: "no builder at all", files: "go.mod", fault: "none of its builders fits this tree|available: none yet"},
		{name: "two fit", images: several, files: "go.mod package.json", fault: `more than one of its builders fits this tree: daeploy.local/builders/go:1 (has go.mod), daeploy.local/builders/node:18 (has package.json)|builder = "daeploy.local/builders/go:1"`},
		{name: "two fit, one is ordered", images: several, files: "go.mod package.json", order: []daeploy.ImageRef{"daeploy.local/builders/gone:1", "daeploy.local/builders/node:18"}, want: "daeploy.local/builders/node:18 package.json"},
		{name: "two fit, a third is ordered", images: several, files: "go.mod package.json", order: []daeploy.ImageRef{"daeploy.local/builders/python:3.11"}, fault: "more than one"},
		{name: "one fits, another is ordered", images: several, files: "go.mod", order: []daeploy.ImageRef{"daeploy.local/builders/python:3.11"}, want: "daeploy.local/builders/go:1 go.mod"},
		{name: "two names of one image", images: []daeploy.Image{builder("a:1", "x", "f"), builder("a:2", "x", "f")}, files: "f", want: "daeploy.local/builders/a:1 f"},
		{name: "long lists end", images: many, files: "other", fault: "builders/b09:1, and 2 more"},
		{name: "an image without a config", images: []daeploy.Image{{Ref: "daeploy.local/builders/x:1"}}, files: "f", fault: "none of its builders fits"},
		{name: "hostile label", images: []daeploy.Image{builder("a:1", "a", "../etc/passwd \x1b[2J"), builder("b:1", "b", "")}, files: "f", fault: "none of its builders fits"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var files []daeploy.TreeEntry
			for name := range strings.FieldsSeq(test.files) {
				e := daeploy.TreeEntry{Path: strings.TrimRight(name, "@/"), Mode: 0o100644}
				switch name[len(name)-1] {
				case '@':
					e.Mode = daeploy.ModeLink
				case '/':
					e.Mode = daeploy.ModeSubmodule
				}
				files = append(files, e)
			}
			ref, has, err := buildpipeline.Detect(test.images, files, test.order)
			if test.fault == "" {
				if got := string(ref) + " " + has; err != nil || got != test.want {
					t.Errorf("Detect = %q, %v, want %q", got, err, test.want)
				}
				return
			}
			var e *daeploy.Error
			if !errors.As(err, &e) || e.Code != "no_builder" {
				t.Fatalf("Detect = %s, %v, want no_builder", ref, err)
			}
			for part := range strings.SplitSeq(test.fault, "|") {
				if !strings.Contains(e.Message+" "+e.Hint, part) {
					t.Errorf("%q, hint %q: want %q", e.Message, e.Hint, part)
				}
			}
		})
	}
}
