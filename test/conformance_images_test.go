package test_test

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/daeploy/daeploy/container/containertest"
)

// fixtures are the images of S151, by the names of the contract in lower case;
// a variant has a word behind its name.
var fixtures = map[string]func(*trial) containertest.Image{
	"b1":          plainly(b1),
	"b1-resolv":   plainly(func() containertest.Image { return b1With(file("/etc/resolv.conf", "nameserver 192.0.2.1\n")) }),
	"b1-noexec":   plainly(func() containertest.Image { return b1With(file(stockDir+"/assemble", reportAssemble)) }),
	"b1-dangling": plainly(func() containertest.Image { return b1With(link(stockDir+"/assemble", "/nowhere")) }),
	"b1-tmp-link": plainly(func() containertest.Image { return b1With(link("/tmp", "../../../../../../elsewhere")) }),
	"b1-src-link": plainly(func() containertest.Image { return b1With(link("/tmp/src", "../../../../../../etc")) }),
	"b2": plainly(func() containertest.Image {
		return reporting(stockDir, config{"Env": []string{"STI_SCRIPTS_URL=image://" + stockDir}})
	}),
	"b3": plainly(func() containertest.Image {
		return reporting("/tmp/scripts", labelled("scripts-url", "image:///tmp/scripts/"))
	}),
	"b4":  plainly(b4),
	"b5":  plainly(b5),
	"b6":  plainly(b6),
	"b7":  plainly(func() containertest.Image { return reporting(stockDir, config{"User": "431"}) }),
	"b8":  plainly(func() containertest.Image { return reporting(stockDir, user("431", "0")) }),
	"b9":  plainly(func() containertest.Image { return reporting(stockDir, user("", "431")) }),
	"b10": plainly(b10),
	"b11": b11,
	"b12": plainly(func() containertest.Image {
		return reporting(stockDir, config{"Env": []string{"STI_SCRIPTS_PATH=" + stockDir}})
	}),
	"b13":          plainly(func() containertest.Image { return reporting(stockDir, config{}) }),
	"b14":          plainly(b14),
	"b15":          plainly(b15),
	"b16":          plainly(b16),
	"b16-env":      plainly(b16Env),
	"b16-relative": plainly(b16Relative),
	"b16-run":      plainly(func() containertest.Image { return reporting(stockDir, labelled("destination", "/run/x")) }),
	"b18":          plainly(func() containertest.Image { return reporting(stockDir, labelled("scripts-url", "file:///etc")) }),
	"b18-scheme":   plainly(func() containertest.Image { return reporting(stockDir, labelled("scripts-url", stockDir)) }),
	"b19":          plainly(b19),
	"b20":          plainly(func() containertest.Image { return containertest.Image{Shell: true} }),
	"b21":          plainly(func() containertest.Image { return b1With(containertest.File{Path: "/.wh.tmp"}) }),
	"b21-0755":     plainly(func() containertest.Image { return b1With(containertest.File{Path: "/tmp", Dir: true, Mode: 0o755}) }),
	"b22":          plainly(b22),
	"r1":           plainly(r1),
	"r1-onbuild":   plainly(r1OnBuild),
	"r2": plainly(func() containertest.Image {
		return containertest.Image{Shell: true, Config: config{"WorkingDir": "/srv"}}
	}),
}

type config = map[string]any

// plainly is a fixture that needs nothing of its trial.
func plainly(image func() containertest.Image) func(*trial) containertest.Image {
	return func(*trial) containertest.Image { return image() }
}

const (
	stockDir = "/usr/libexec/s2i"
	workHome = "/opt/app-root/src"
)

// The scripts of S151.
const (
	reportAssemble = `#!/bin/sh
set -e
cd DESTINATION/src
for f in * .[!.]*; do
	if [ -e "$f" ] || [ -L "$f" ]; then cp -a "$f" /app/; fi
done
cd "$OLDPWD"
report
`
	reportProgram = `#!/bin/sh
{
	echo "id $(id -u):$(id -g) $(id -G)"
	echo "pwd $(pwd)"
	echo "args $#"
	env
	ls -lnaR /tmp
} >/app/report
touch /app/assemble-invoked
echo "the image's assemble"
`
	reportRun = `#!/bin/sh
touch /app/run-invoked && echo "the image's run: $(ls /app/run-invoked)"
`
	tarSave  = "#!/bin/sh\ntar -C /app -cf - . && dd if=/dev/zero bs=512 count=40 2>/dev/null\n"
	saveDeps = "#!/bin/sh\nif [ -e deps ]; then tar -cf - deps; fi\n"
	usage    = "#!/bin/sh\necho \"usage of this builder: push to it\"\n"
)

func labelled(words ...string) config {
	labels := map[string]string{}
	for i := 0; i < len(words); i += 2 {
		labels["io.openshift.s2i."+words[i]] = words[i+1]
	}
	return config{"Labels": labels}
}

// user has a User and an assemble-user label, each only if it is not empty.
func user(name, label string) config {
	c := config{}
	if label != "" {
		c = labelled("assemble-user", label)
	}
	if name != "" {
		c["User"] = name
	}
	return c
}

// reporting is an image with the scripts of S151 in dir.
func reporting(dir string, c config, more ...containertest.File) containertest.Image {
	return reportingTo("/tmp", dir, c, more...)
}

func reportingTo(destination, dir string, c config, more ...containertest.File) containertest.Image {
	files := slices.Concat([]containertest.File{
		{Path: "/app", Dir: true, Mode: 0o777},
		script("/bin/report", reportProgram),
		script(dir+"/assemble", strings.ReplaceAll(reportAssemble, "DESTINATION", destination)),
		script(dir+"/run", reportRun),
	}, more)
	return containertest.Image{Shell: true, Layers: [][]containertest.File{files}, Config: c}
}

func b1Config() config {
	c := labelled("scripts-url", "image://"+stockDir)
	c["WorkingDir"] = workHome
	return c
}

func b4() containertest.Image { return reporting(stockDir, b1Config()) }

func b1() containertest.Image {
	return reporting(stockDir, b1Config(), script(stockDir+"/save-artifacts", tarSave), script(stockDir+"/usage", usage))
}

// b1With is B1 with a further layer.
func b1With(files ...containertest.File) containertest.Image {
	image := b1()
	image.Layers = append(image.Layers, files)
	return image
}

const b5Assemble = `#!/bin/sh
set -e
report
find /tmp/src -mindepth 1 -maxdepth 1 -exec mv {} "$HOME/" \;
fix-permissions "$HOME"
if [ -e /tmp/artifacts/deps ]; then mv /tmp/artifacts/deps "$HOME/deps"; fi
`

func b5() containertest.Image {
	c := labelled("scripts-url", "image://"+stockDir)
	c["Labels"].(map[string]string)["io.s2i.scripts-url"] = "image://" + stockDir
	maps.Copy(c, config{
		"User": "1001", "WorkingDir": workHome, "Entrypoint": []string{"container-entrypoint"},
		"Env": []string{
			"PATH=/bin:/usr/bin", "HOME=" + workHome, "APP_ROOT=/opt/app-root", "BASH_ENV=/opt/app-root/bin/activate",
			"STI_SCRIPTS_URL=image://" + stockDir, "STI_SCRIPTS_PATH=" + stockDir,
		},
	})
	image := reporting(stockDir, c,
		file("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\ndefault:x:1001:0:Default:"+workHome+":/bin/sh\n"),
		file("/etc/group", "root:x:0:\n"),
		containertest.File{Path: workHome, Dir: true, UID: 1001, Mode: 0o775},
		script("/usr/bin/container-entrypoint", "#!/bin/sh\nexec \"$@\"\n"),
		script("/usr/bin/fix-permissions", "#!/bin/sh\nfind \"$1\" -user \"$(id -u)\" -exec chgrp 0 {} + -exec chmod g+rwX {} +\n"),
		script(stockDir+"/save-artifacts", saveDeps),
	)
	image.Layers = append(image.Layers, []containertest.File{script(stockDir+"/assemble", b5Assemble)})
	return image
}

func b6() containertest.Image {
	return reporting(stockDir, config{"User": "fakeuser"},
		file("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nfakeuser:x:431:432::/home/fake:/bin/sh\n"),
		file("/etc/group", "root:x:0:\nfake:x:432:\nextra:x:50:fakeuser\n"))
}

func b10() containertest.Image {
	image := b5()
	image.Layers = append(image.Layers, []containertest.File{{Path: "/bin/.wh.tar"}})
	return image
}

// b11 has no shell: its scripts are one static program.
func b11(c *trial) containertest.Image {
	program := filepath.Join(c.TempDir(), "script")
	build := exec.CommandContext(c.Context(), "go", "build", "-ldflags=-s -w", "-o", program, "./testdata/script")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		c.Fatalf("build the scripts of B11: %v\n%s", err, out)
	}
	text, err := os.ReadFile(program)
	c.must(err)
	var files []containertest.File
	for _, dir := range []string{"/app", "/etc", "/dev", "/proc", "/sys", "/run"} {
		files = append(files, containertest.File{Path: dir, Dir: true})
	}
	files = append(files, script(stockDir+"/assemble", string(text)), containertest.File{Path: stockDir + "/run", Hard: stockDir + "/assemble", Mode: 0o755})
	return containertest.Image{Layers: [][]containertest.File{files}}
}

const (
	slimAssemble = "#!/bin/sh\nset -e\nmkdir -p \"$APP_ROOT\"\nmv /tmp/src/* \"$APP_ROOT/\"\necho \"the image's assemble\"\n"
	bareAssemble = "#!/bin/sh\nset -e\nfind /tmp/src -mindepth 1 -maxdepth 1 -exec mv {} \"$APP_ROOT/\" \\;\necho \"the image's assemble\"\n"
	slimRun      = "#!/bin/sh\necho \"the image's run\"\ncd \"$APP_ROOT\"\nif [ -n \"$APP_SCRIPT\" ]; then exec sh \"$APP_SCRIPT\"; fi\nexec sh \"${APP_FILE:-app.py}\"\n"
)

func slim(dir string, assemble string, c config) containertest.Image {
	files := []containertest.File{
		{Path: workHome, Dir: true}, script(dir+"/assemble", assemble), script(dir+"/run", slimRun),
	}
	return containertest.Image{Shell: true, Layers: [][]containertest.File{files}, Config: c}
}

func b14() containertest.Image {
	c := labelled("scripts-url", "image://.s2i/bin")
	c["Env"] = []string{"STI_SCRIPTS_PATH=/.s2i/bin", "APP_ROOT=/app_root"}
	return slim("/.s2i/bin", slimAssemble, c)
}

func b15() containertest.Image {
	c := b1Config()
	c["Env"] = []string{"HOME=" + workHome, "APP_ROOT=" + workHome, "STI_SCRIPTS_PATH=" + stockDir}
	return slim(stockDir, bareAssemble, c)
}

func b16() containertest.Image {
	return reportingTo("/opt/s2i", stockDir, config{"Labels": map[string]string{
		"io.s2i.scripts-url": "image://" + stockDir, "io.s2i.destination": "/opt/s2i",
	}})
}

func b16Env() containertest.Image {
	return reportingTo("/opt/s2i", stockDir, config{"Env": []string{"STI_LOCATION=/opt/s2i"}})
}

func b16Relative() containertest.Image {
	c := labelled("destination", "build")
	c["WorkingDir"] = workHome
	return reportingTo(workHome+"/build", stockDir, c)
}

// b17 keeps its scripts at a server on this host.
func b17(url string) containertest.Image {
	return containertest.Image{
		Shell: true, Config: labelled("scripts-url", url),
		Layers: [][]containertest.File{{{Path: "/app", Dir: true, Mode: 0o777}, script("/bin/report", reportProgram)}},
	}
}

func b19() containertest.Image {
	image := b1()
	image.Config["OnBuild"] = []string{"RUN true"}
	return image
}

func b22() containertest.Image {
	image := b1()
	maps.Copy(image.Config, config{
		"Entrypoint": []string{"/bin/sh", "/exit9"}, "ExposedPorts": config{"8080/tcp": config{}}, "Volumes": config{"/data": config{}},
		"Healthcheck": config{"Test": []string{"CMD", "true"}, "Interval": 30000000000}, "StopSignal": "SIGUSR1", "User": "1001:0",
		"X-Unknown": config{"kept": []int{1, 2}},
	})
	labels := image.Config["Labels"].(map[string]string)
	labels["io.k8s.description"], labels["com.example.team"] = "a builder", "blue"
	image.Layers = append(image.Layers, []containertest.File{
		script("/exit9", "exit 9\n"), {Path: "/data", Dir: true, Mode: 0o777},
	})
	image.Top = map[string]any{"com.example.unknown": "kept"}
	return image
}

func r1() containertest.Image {
	c := labelled("scripts-url", "image:///usr/runtime", "assemble-input-files", "/app/artifact;/app/dir:lib")
	maps.Copy(c, config{"WorkingDir": "/srv", "User": "1001"})
	files := []containertest.File{
		{Path: "/srv", Dir: true, Mode: 0o777},
		script("/usr/runtime/assemble-runtime", "#!/bin/sh\necho \"assemble-runtime as $(id -u) in $(pwd)\"; touch assembled\n"),
		script("/usr/runtime/run", "#!/bin/sh\necho the runtime\\'s run\n"),
	}
	return containertest.Image{Shell: true, Layers: [][]containertest.File{files}, Config: c}
}

func r1OnBuild() containertest.Image {
	image := r1()
	image.Config["OnBuild"] = []string{"RUN true"}
	return image
}

// onlyFor is an image of another platform than this host's.
func onlyFor(architecture, name string) containertest.Image {
	return containertest.Image{Name: name, Architecture: architecture, Layers: [][]containertest.File{{file("/etc/motd", fmt.Sprintln(architecture))}}}
}
