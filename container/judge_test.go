package container_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container/containertest"
)

// F84: an image of as many layers as may be is built upon, and what comes of it runs; to
// build upon that is refused, before anything of it is mounted.
func TestMostLayers(t *testing.T) {
	e := newEngine(t, offline)
	image := containertest.Image{Shell: true, Config: map[string]any{"Env": []string{"PATH=/bin"}}}
	for i := range 189 {
		image.Layers = append(image.Layers, []containertest.File{{Path: fmt.Sprintf("/layer/%d", i)}})
	}
	w, base := workspace(t, e, imported(t, e, image))
	run(t, w, script("ls /layer | wc -l >/count"))
	built, _ := commit(t, w, base, nil)
	must(t, w.Close(t.Context()))
	var out bytes.Buffer
	exit, err := e.RunImage(t.Context(), daeploy.RunSpec{App: "blog", Image: built.Ref, Args: []string{"cat", "/count"}, Stdout: &out})
	if err != nil || exit != 0 || strings.TrimSpace(out.String()) != "189" {
		t.Errorf("the image on 190 layers: exit %d, %v, output %q; want 189", exit, err, out.String())
	}
	again, err := e.Open(t.Context(), daeploy.BuildID{App: "blog", Number: builds.Add(1)})
	must(t, err)
	defer func() { must(t, again.Close(t.Context())) }()
	base, err = again.Image(t.Context(), built.Ref, daeploy.PullNever, nil)
	must(t, err)
	var told *daeploy.Error
	if err := again.Prepare(t.Context(), base); !errors.As(err, &told) || told.Code != "builder_invalid" || !strings.Contains(told.Message, "191 layers") {
		t.Errorf("Prepare on 191 layers: %v, want builder_invalid", err)
	}
	t.Attr("F84", "an image of 190 layers, and the image built on it: built upon and run; a build on the latter is refused by the number")
}
