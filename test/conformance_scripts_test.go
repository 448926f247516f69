package test_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy/container/containertest"
)

// scriptCases are about where scripts come from: C11 to C17.
var scriptCases = []conformanceCase{
	{11, "B1; hooks of git mode 100644", "S35 S44", []part{{"moved", caseMovedHooks}}},
	{12, "B1 with one hook; B3 with an assemble hook", "S38 S42 S113", []part{
		{"run alone", func(c *trial) {
			b := c.app("b1", hookRun).push()
			p := b.succeeds()
			p.want(map[string]string{"/app/assemble-invoked": `-rw-r--r-- 0:0 ""`})
			c.command(p, "/tmp/scripts/run")
			c.prints(b.started(), "the hook's run")
		}},
		{"assemble alone", func(c *trial) {
			p := c.app("b1", hookAssemble).push().succeeds()
			p.want(map[string]string{"/app/hooked": `-rw-r--r-- 0:0 ""`, "/app/assemble-invoked": "nothing"})
			c.command(p, stockDir+"/run")
		}},
		{"B3", func(c *trial) {
			p := c.app("b3", hookAssemble).push().succeeds()
			p.want(map[string]string{"/app/hooked": `-rw-r--r-- 0:0 ""`, "/tmp/scripts/run": fmt.Sprintf("-rwxr-xr-x 0:0 %q", reportRun)})
			c.command(p, "/tmp/scripts/run")
		}},
	}},
	{13, "B1; .sti/bin/assemble; both directories", "S42", []part{
		{"old", func(c *trial) {
			b := c.app("b1", script(".sti/bin/assemble", hookAssemble.Content)).push()
			b.says(".sti/bin/assemble is deprecated").succeeds().want(map[string]string{"/app/hooked": `-rw-r--r-- 0:0 ""`})
		}},
		{"both", func(c *trial) {
			p := c.app("b1", hookAssemble, script(".sti/bin/assemble", "#!/bin/sh\nexit 9\n")).push().succeeds()
			p.want(map[string]string{"/app/hooked": `-rw-r--r-- 0:0 ""`})
		}},
	}},
	{14, "B20; with an assemble hook; with both hooks", "S42 S43 S45", []part{
		{"none", func(c *trial) {
			c.app("b20", text).push().refuses("builder_not_s2i",
				".s2i/bin/assemble of your repository (nothing)", ".sti/bin/assemble of your repository (nothing)", "/usr/libexec/s2i/assemble of the image, by default (nothing)",
				".s2i/bin/run of your repository (nothing)", ".sti/bin/run of your repository (nothing)", "/usr/libexec/s2i/run of the image, by default (nothing)")
		}},
		{"assemble", func(c *trial) {
			c.app("b20", hookAssemble).push().refuses("builder_not_s2i", "no run script", "/usr/libexec/s2i/run of the image, by default (nothing)")
		}},
		{"both", func(c *trial) {
			b := c.app("b20", hookAssemble, hookRun).push()
			if got := b.succeeds().env("STI_SCRIPTS_PATH"); got != "unset" {
				c.Errorf("STI_SCRIPTS_PATH is %q", got)
			}
			c.prints(b.started(), "the hook's run")
		}},
	}},
	{15, "B17: not allowed; allowed; 404 for run; a redirect out of the prefix", "S20 S53", []part{
		{"not allowed", func(c *trial) {
			b := c.app(c.imported(b17("http://127.0.0.1:9/.s2i/bin")), text).push()
			b.refuses("scripts_url_refused", "http://127.0.0.1:9/.s2i/bin")
		}},
		{"allowed", func(c *trial) {
			p := c.scriptServer().push().succeeds()
			p.want(map[string]string{"/tmp/scripts/assemble": p.files["/tmp/scripts/assemble"].String(), "/app/a.txt": `-rw-r--r-- 0:0 "text\n"`})
			c.command(p, "/tmp/scripts/run")
		}},
		{"404 for run", func(c *trial) { c.scriptServer("run").push().refuses("builder_not_s2i", "/scripts/run") }},
		{"redirect", func(c *trial) { c.scriptServer("assemble").push().refuses("script_fetch_failed", "/scripts/assemble") }},
	}},
	{16, "B18; a label without scheme; each without and with hooks", "S19 S21 S22", []part{
		{"file", func(c *trial) {
			c.app("b18", text).push().refuses("scripts_url_refused", "file:///etc").silent("file:///etc/")
		}},
		{"file with hooks", func(c *trial) {
			c.app("b18", hookAssemble, hookRun).push().says("warning:", "file:///etc").succeeds()
		}},
		{"no scheme", func(c *trial) { c.app("b18-scheme", text).push().refuses("builder_invalid", stockDir) }},
		{"no scheme with hooks", func(c *trial) {
			c.app("b18-scheme", hookAssemble, hookRun).push().says("warning:", "its scripts URL").succeeds()
		}},
	}},
	{17, "B19; R1 with OnBuild", "S25 S101", []part{
		{"builder", func(c *trial) { c.app("b19", text).push().refuses("builder_onbuild", "ONBUILD") }},
		{"runtime", func(c *trial) { c.app("b1", text, c.runtime("r1-onbuild", "")).push().refuses("runtime_onbuild") }},
	}},
}

var (
	hookAssemble = script(".s2i/bin/assemble", "#!/bin/sh\necho the hook\\'s assemble\nmkdir -p /app\n: >/app/hooked\n")
	hookRun      = script(".s2i/bin/run", "#!/bin/sh\necho the hook\\'s run\n")
)

// command wants the image's Cmd to be one path.
func (c *trial) command(p *picture, want string) {
	c.Helper()
	if diff := cmp.Diff([]string{want}, p.config.Cmd); diff != "" {
		c.Errorf("Cmd (-want +got):\n%s", diff)
	}
}

func caseMovedHooks(c *trial) {
	assemble := "#!/bin/sh\nset -e\nls -ln /tmp/scripts >/app/scripts-were\nexec /usr/libexec/s2i/assemble\n"
	p := c.app("b1", file(".s2i/bin/assemble", assemble), file(".s2i/bin/run", reportRun), file(".s2i/bin/other", "kept"), file(".s2i/environment", "A=b\n")).push().succeeds()
	p.want(map[string]string{
		"/tmp/scripts/assemble":      fmt.Sprintf("-rwxr-xr-x 0:0 %q", assemble),
		"/tmp/scripts/run":           fmt.Sprintf("-rwxr-xr-x 0:0 %q", reportRun),
		"/tmp/src/.s2i/bin/assemble": "nothing",
		"/tmp/src/.s2i/bin/run":      "nothing",
		"/tmp/src/.s2i/bin/other":    `-rw-r--r-- 0:0 "kept"`,
		"/tmp/src/.s2i/environment":  `-rw-r--r-- 0:0 "A=b\n"`,
	})
	if n := strings.Count(p.files["/app/scripts-were"].content, "-rwxr-xr-x"); n != 2 {
		c.Errorf("assemble saw %q", p.files["/app/scripts-were"].content)
	}
}

// scriptServer is an app whose builder keeps its scripts at a server, which
// the daemon may ask; what is without is not there, or elsewhere.
func (c *trial) scriptServer(without ...string) *repository {
	c.Helper()
	mux := http.NewServeMux()
	for name, script := range map[string]string{"assemble": strings.ReplaceAll(reportAssemble, "DESTINATION", "/tmp"), "run": reportRun} {
		mux.HandleFunc("/scripts/"+name, func(w http.ResponseWriter, r *http.Request) {
			switch {
			case len(without) == 0 || without[0] != name:
				fmt.Fprint(w, script)
			case name == "run":
				http.NotFound(w, r)
			default:
				http.Redirect(w, r, "/elsewhere/"+name, http.StatusFound)
			}
		})
		mux.HandleFunc("/elsewhere/"+name, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, script) })
	}
	server := httptest.NewServer(mux)
	c.Cleanup(server.Close)
	url := server.URL + "/scripts"
	c.with(fmt.Sprintf("scripts_urls = [%q]\n", url), "")
	return c.app(c.imported(b17(url)), text)
}

// runCases are about how a script is started and how it ends: C18 to C24.
var runCases = []conformanceCase{
	{18, "B21 without /tmp; with /tmp of mode 0755", "S37", []part{
		{"without", func(c *trial) { c.tmpIsOpen("b21") }},
		{"mode 0755", func(c *trial) { c.tmpIsOpen("b21-0755") }},
	}},
	{19, "B22; assemble writes /data/x", "S16 S48 S114-S116", []part{{"config", caseConfigKept}}},
	{20, "a hook without #!; with CR LF; without its interpreter; an image script without exec bit; a run hook with CR LF", "S49", []part{
		{"no interpreter line", func(c *trial) {
			c.app("b1", script(".s2i/bin/assemble", ": >/app/hooked\n")).push().succeeds().want(map[string]string{"/app/hooked": `-rw-r--r-- 0:0 ""`})
		}},
		{"CR LF", func(c *trial) {
			c.app("b1", script(".s2i/bin/assemble", "#!/bin/sh\r\ntrue\r\n")).push().refuses("script_not_runnable", ".s2i/bin/assemble cannot be started", "CR LF")
		}},
		{"no interpreter", func(c *trial) {
			c.app("b1", script(".s2i/bin/assemble", "#!/usr/bin/perl\n")).push().refuses("script_not_runnable", "the image has no /usr/bin/perl")
		}},
		{"no exec bit", func(c *trial) { c.app("b1-noexec", text).push().refuses("script_not_runnable", "it has no exec bit") }},
		{"run with CR LF", func(c *trial) {
			c.app("b1", script(".s2i/bin/run", "#!/bin/sh\r\n")).push().says("warning: .s2i/bin/run cannot be started", "CR LF").succeeds()
		}},
	}},
	{21, "assemble exits 3; kills itself by 9; is a link to nowhere in the image", "S2 S43 S52", []part{
		{"exits", func(c *trial) { c.endsWith("exit 3", 3) }},
		{"killed", func(c *trial) { c.endsWith("kill -9 $$", 137) }},
		{"link to nowhere", func(c *trial) {
			c.app("b1-dangling", text).push().refuses("builder_not_s2i", "/usr/libexec/s2i/assemble of the image, by label io.openshift.s2i.scripts-url (nothing)")
		}},
	}},
	{22, "assemble prints blanks, tabs, CR, invalid UTF-8, no last newline, on both outputs", "S52", []part{{"output", caseOutput}}},
	{23, "assemble leaves a process that keeps writing; cancel while it runs", "S51", []part{
		{"left behind", caseLeftBehind},
		{"canceled", caseCanceled},
	}},
	{24, "assemble looks at its input, terminal, umask, arguments and directory; WORKDIR is missing", "S48 S50", []part{{"start", caseStart}}},
}

func (c *trial) tmpIsOpen(builder string) {
	c.Helper()
	p := c.app(builder, text).push().succeeds()
	p.want(map[string]string{"/tmp": "drwxrwxrwt 0:0"})
	c.prints(p.files["/app/report"].content, "drwxrwxrwt")
}

func caseConfigKept(c *trial) {
	before, err := c.suite.look(c.image("b22"))
	c.must(err)
	hook := script(".s2i/bin/assemble", "#!/bin/sh\nset -e\necho x >/data/x\nexec "+stockDir+"/assemble\n")
	p := c.app("b22", hook, file(".s2i/environment", "A=b\n")).push().succeeds()
	p.want(map[string]string{"/data/x": `-rw-r--r-- 1001:0 "x\n"`})
	if _, ok := p.layer["/data/x"]; !ok {
		c.Errorf("/data/x is not in the new layer")
	}
	was, is := before.raw["config"].(config), p.raw["config"].(config)
	labels := is["Labels"].(config)
	for name, value := range was["Labels"].(config) {
		if labels[name] != value {
			c.Errorf("label %s is %v, was %v", name, labels[name], value)
		}
	}
	for _, changed := range []string{"Cmd", "Env", "Labels"} {
		delete(was, changed)
		delete(is, changed)
	}
	if got := before.raw["history"].([]any); len(p.raw["history"].([]any)) != len(got)+1 || len(p.manifest.Layers) != len(before.manifest.Layers)+1 {
		c.Errorf("%d layers of %d", len(p.manifest.Layers), len(before.manifest.Layers))
	}
	for _, changed := range []string{"history", "rootfs", "created"} {
		delete(before.raw, changed)
		delete(p.raw, changed)
	}
	if diff := cmp.Diff(before.raw, p.raw); diff != "" {
		c.Errorf("config (-builder +output):\n%s", diff)
	}
}

// endsWith wants the exit code of assemble's last words, and tags as before.
func (c *trial) endsWith(words string, code int) {
	c.Helper()
	r := c.app("b1", text)
	first := r.push()
	first.succeeds()
	r.write(script(".s2i/bin/assemble", "#!/bin/sh\n"+words+"\n"))
	b := r.push()
	b.fails("assemble_failed", fmt.Sprintf("assemble failed (exit %d)", code))
	if b.ExitCode != code {
		c.Errorf("exit code %d, want %d", b.ExitCode, code)
	}
	out, err := r.s.ctr("images", "list", "-q")
	c.must(err)
	if strings.Contains(out, "daeploy.local/"+r.app+":2\n") {
		c.Errorf("the failed build has an image")
	}
	latest, err := r.s.look("daeploy.local/" + r.app + ":latest")
	c.must(err)
	if got := latest.config.Labels["org.opencontainers.image.version"]; got != "1" {
		c.Errorf("latest is build %q", got)
	}
}

func caseOutput(c *trial) {
	const out, errs = `  two\n\tone tab\n 10%%\r 20%%\r 100%%\n\n\n\377\376 end\n`, `   three \nno end`
	b := c.app("b1", script(".s2i/bin/assemble", "#!/bin/sh\nprintf '"+out+"'\nprintf '"+errs+"' >&2\n")).push()
	b.succeeds()
	const first, second = "  two\n\tone tab\n 10%\r 20%\r 100%\n\n\n\xff\xfe end\n", "   three \nno end"
	if got := b.raw(); got != first+second && got != second+first {
		c.Errorf("the stored output is %q", got)
	}
	log, err := b.s.ask("logs", b.id)
	c.must(err)
	// The view ends a line at CR, shows what is no UTF-8, and keeps all else.
	lines := strings.NewReplacer("\r\n", "\n", "\r", "\n", "\xff\xfe", "\ufffd\ufffd").Replace(b.raw())
	lines = "  | " + strings.ReplaceAll(strings.TrimSuffix(lines, "\n"), "\n", "\n  | ") + "\n"
	if !strings.Contains(strings.ReplaceAll(log, "  |\n", "  | \n"), lines) {
		c.Errorf("the view has not %q:\n%q", lines, log)
	}
}

func caseLeftBehind(c *trial) {
	assemble := "#!/bin/sh\nmkfifo /app/begun\n(echo >/app/begun; while :; do echo tick >>/app/ticks; done) >/dev/null 2>&1 &\nread x </app/begun\nrm /app/begun\n"
	b := c.app("b1", script(".s2i/bin/assemble", assemble)).push()
	p := b.succeeds()
	if got := strings.TrimRight(p.files["/app/ticks"].content, "tick\n"); got != "" {
		c.Errorf("ticks has %.100q", got)
	}
	c.nothingRuns(b)
}

func caseCanceled(c *trial) {
	r := c.app("b1", script(".s2i/bin/assemble", "#!/bin/sh\nsleep 1000 &\necho begun\nsleep 1000\n"))
	end := r.starts("begun")
	_, err := r.s.ask("cancel", r.app)
	c.must(err)
	b := end()
	if b.Status != "canceled" {
		c.Errorf("%s is %s", b.id, b.Status)
	}
	c.nothingRuns(b)
}

// nothingRuns wants no container of the build, at the latest a moment later.
func (c *trial) nothingRuns(b *built) {
	c.Helper()
	name := strings.ReplaceAll(b.id, "/", "-")
	c.must(within(patience, func() error {
		for _, list := range [][]string{{"tasks", "list", "-q"}, {"containers", "list", "-q"}} {
			out, err := b.s.ctr(list...)
			if err != nil || strings.Contains(out, name) {
				return fmt.Errorf("%s are left: %q %w", list[0], out, err)
			}
		}
		return nil
	}))
}

const lookAround = `#!/bin/sh
read -r line && echo "input more" || echo "input end"
[ -t 0 ] || [ -t 1 ] || [ -t 2 ] && echo "a terminal" || echo "no terminal"
echo "umask $(umask)"
echo "args $#"
echo "pwd $(pwd) $(ls -lnd . | tr -s ' ' | cut -d' ' -f1,3,4)"
echo "host $(hostname)"
echo "called $0"
`

func caseStart(c *trial) {
	image := containertest.Image{Shell: true, Config: config{"WorkingDir": "/not/there"}}
	r := c.app(c.imported(image), script(".s2i/bin/assemble", lookAround), hookRun)
	b := r.push()
	b.succeeds().want(map[string]string{"/not": "drwxr-xr-x 0:0", "/not/there": "drwxr-xr-x 0:0"})
	want := "input end\nno terminal\numask 0022\nargs 0\npwd /not/there drwxr-xr-x 0 0\nhost " + r.app + "-1\ncalled /tmp/scripts/assemble\n"
	if diff := cmp.Diff(want, b.raw()); diff != "" {
		c.Errorf("output (-want +got):\n%s", diff)
	}
}
