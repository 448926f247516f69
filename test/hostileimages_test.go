package test_test

import (
	"archive/tar"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/daeploy/daeploy/container/containertest"
	"github.com/daeploy/daeploy/test/history"
)

// hostileImage is a builder with a fault, and what is told of it.
type hostileImage struct {
	name string
	make func(*containertest.Image)
	code string // of the build; "" if the image cannot even be imported
	says string
}

func withConfig(key string, value any) func(*containertest.Image) {
	return func(i *containertest.Image) { i.Config[key] = value }
}

// withLabel keeps the label of the scripts' place.
func withLabel(name, value string) func(*containertest.Image) {
	return func(i *containertest.Image) {
		labels := map[string]string{name: value}
		for n, v := range i.Config["Labels"].(map[string]string) {
			if _, ok := labels[n]; !ok {
				labels[n] = v
			}
		}
		i.Config["Labels"] = labels
	}
}

func withFiles(files ...containertest.File) func(*containertest.Image) {
	return func(i *containertest.Image) { i.Layers, i.Gzip = append(i.Layers, files), true }
}

func all(makes ...func(*containertest.Image)) func(*containertest.Image) {
	return func(i *containertest.Image) {
		for _, make := range makes {
			make(i)
		}
	}
}

func manyGroups(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "g:x:%d:u\n", i)
	}
	return b.String()
}

const labelDest = "io.openshift.s2i.destination"

var (
	noTmp = containertest.File{Path: "/.wh.tmp"}

	hostileImages = []hostileImage{
		{"a WORKDIR 20,000 deep", withConfig("WorkingDir", strings.Repeat("/a", 20_000)), "", "its working directory is 20000 directories deep; at most 128 are allowed"},
		{"a WORKDIR with a NUL", withConfig("WorkingDir", "/a\x00b"), "", "its working directory has a NUL character"},
		{"a WORKDIR with a name of 300 bytes", withConfig("WorkingDir", "/"+strings.Repeat("b", 300)), "", "has a name of 300 bytes"},
		{"a variable without =", withConfig("Env", []string{"PATH=/bin", "ALONE"}), "", `its variable "ALONE" has no =`},
		{"a variable without a name", withConfig("Env", []string{"PATH=/bin", "=x"}), "", "a variable without a name"},
		{"a variable of 200 KB", withConfig("Env", []string{"PATH=/bin", "LARGE=" + strings.Repeat("x", 200<<10)}), "", `its variable "LARGE" has 204806 bytes`},
		{"600 layers", func(i *containertest.Image) { i.Layers = append(i.Layers, make([][]containertest.File, 600)...) }, "", "it has 602 layers; at most 190 are allowed"},

		{"a destination 20,000 deep", withLabel(labelDest, strings.Repeat("/a", 20_000)), "builder_invalid", "its destination is 20000 directories deep"},
		{"a destination of 200 KB", withLabel(labelDest, "/"+strings.Repeat("a", 200<<10)), "builder_invalid", "its destination has"},
		{"a destination that links to /proc/self", all(withLabel(labelDest, "/link"), withFiles(containertest.File{Path: "/link", Link: "/proc/self"})), "builder_invalid", `its destination, "/link", leads to "/proc/self"`},
		{"a destination that links to /", all(withLabel(labelDest, "/link"), withFiles(containertest.File{Path: "/link", Link: "tmp/../up"}, containertest.File{Path: "/up", Link: ".."})), "builder_invalid", `its destination, "/link", leads to "/"`},
		{"scripts of the destination that link to /run", withFiles(containertest.File{Path: "/tmp/scripts", Link: "/run"}), "builder_invalid", `its directory for scripts, "/tmp/scripts", leads to "/run"`},
		{"a scripts URL of 200 KB", withLabel("io.openshift.s2i.scripts-url", "image:///"+strings.Repeat("a", 200<<10)), "builder_invalid", "the directory it has its scripts in has"},
		{"/tmp as a link to /proc/1/root/tmp", withFiles(noTmp, containertest.File{Path: "/tmp", Link: "/proc/1/root/tmp"}), "builder_invalid", `its temporary directory, "/tmp", leads to "/proc/1/root/tmp"`},
		{"/tmp as a fifo", withFiles(noTmp, containertest.File{Path: "/tmp", Type: tar.TypeFifo}), "builder_invalid", `its temporary directory, "/tmp", is no directory`},
		{"a WORKDIR below a file", all(withConfig("WorkingDir", "/file/x"), withFiles(containertest.File{Path: "/file"})), "builder_invalid", `its working directory, "/file/x", is no directory`},
		{"a WORKDIR of links in a circle", all(withConfig("WorkingDir", "/loop"), withFiles(containertest.File{Path: "/loop", Link: "loop"})), "builder_invalid", `its working directory, "/loop", is no directory`},
		{"a WORKDIR that links to a path 2,000 deep", all(withConfig("WorkingDir", "/deep"), withFiles(containertest.File{Path: "/deep", Link: strings.Repeat("a/", 2000)})), "builder_invalid", `its working directory, "/deep", is no directory`},
		{"/etc/passwd of 100 MB", withFiles(containertest.File{Path: "/etc/passwd", Size: 100 << 20}), "builder_invalid", "/etc/passwd has 104857600 bytes; at most 1048576 are read"},
		{"a user in 70,000 groups", all(withLabel("io.openshift.s2i.assemble-user", "u"), withFiles(containertest.File{Path: "/etc/passwd", Content: "u:x:7:0::/:\n"}, containertest.File{Path: "/etc/group", Content: manyGroups(70_000)})), "user_unknown", `user "u" is in more than 1000 groups`},
	}
)

// TestHostileImages: F84 as a whole: builder images with faults of which the kernel, the
// runtime or the time of a build would tell otherwise. Each is refused by its name, when
// it comes or when it is built with, and soon; after each nothing is left, doctor finds
// nothing new, and the app's next push builds.
func TestHostileImages(t *testing.T) {
	k := newOrdealWith(t, strings.Replace(killConfig, "[build]", "[build]\ntimeout = \"30s\"", 1), func(*story) {})
	h := k.newHand("blog", 1, k.seed, (*hand).push)
	h.prints = 1
	k.gate.open(k.port)
	file := k.path("work", "blog", ".daeploy")
	pushes := 0
	// pushWith builds by that .daeploy, "" for none, and gives the build.
	pushWith := func(text string) (id string, b history.Build) {
		err := os.Remove(file)
		if text != "" {
			err = os.WriteFile(file, []byte(text), 0o644)
		}
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		h.write(0)
		h.send(history.Push)
		pushes++
		id = fmt.Sprintf("blog/%d", pushes)
		if err := k.askJSON(&b, "build", id); err != nil {
			t.Fatal(err)
		}
		return id, b
	}
	pushWith("")
	var tried []string
	slowest, most := time.Duration(0), 0.0
	for n, tt := range hostileImages {
		image := stockBuilder()
		image.Name = fmt.Sprintf("daeploy.local/builders/hostile-%d:1", n)
		tt.make(&image)
		began := time.Now()
		err := k.importImage(image)
		switch {
		case tt.code == "" && (err == nil || !strings.Contains(err.Error(), image.Name+" cannot be used as a builder") || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), "hint: ")):
			t.Errorf("%s: import: %.1000v; want it refused with %q", tt.name, err, tt.says)
		case tt.code == "":
		case err != nil:
			t.Fatalf("%s: %v", tt.name, err)
		default:
			began = time.Now()
			texts := map[string]string{tt.code: fmt.Sprintf("builder = %q\n", image.Name)}
			if tt.code == "builder_invalid" && strings.HasPrefix(tt.name, "/tmp") {
				texts["runtime_invalid"] = fmt.Sprintf("[runtime]\nimage = %q\nartifacts = [\"/etc/passwd\"]\n", image.Name)
			}
			for code, text := range texts {
				id, b := pushWith(text)
				if b.Status != "failed" || b.Reason != code || !strings.Contains(b.Message, tt.says) || !strings.Contains(b.Message, image.Name) || len(b.Message) > 1000 {
					t.Errorf("%s: %s is %s, %s: %.1000s; want %s with %q", tt.name, id, b.Status, b.Reason, b.Message, code, tt.says)
				}
				k.record.Add(history.Entry{Verb: history.Harm, Build: id}) // no fault of the daemon's
				k.wantCleanLog(tt.name, id)
			}
		}
		tried, slowest = append(tried, tt.name), max(slowest, time.Since(began))
		if err := within(5*time.Second, k.residue); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if found := k.newFindings(); len(found) > 0 {
			t.Errorf("%s: doctor finds %q", tt.name, found)
		}
		if id, b := pushWith(""); b.Status != "succeeded" {
			t.Errorf("%s: the next push, %s, is %s: %s", tt.name, id, b.Status, b.Message)
		}
		most = max(most, k.mib("VmHWM"))
	}
	k.judge()
	if slowest > 15*time.Second || most > 100 {
		t.Errorf("the slowest refusal took %s, the daemon had %.0f MiB at most", slowest, most)
	}
	t.Attr("F84", fmt.Sprintf("builders with %s: not imported, or the build ends, after %s at most and by name of the fault; the daemon had %.0f MiB at most; a push after each builds",
		strings.Join(tried, "; "), slowest.Round(100*time.Millisecond), most))
}
