package buildpipeline_test

import (
	"bytes"
	"encoding/json"
	"path"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/buildpipeline"
)

// TestLayout: where an image says its scripts and its destination are (S11,
// S12, S17 to S24).
func TestLayout(t *testing.T) {
	type labels = map[string]string
	for _, test := range []struct {
		name          string
		workdir       string
		labels        labels
		env           []string
		dest, scripts string
		input         string
		notices       int
		code          string
	}{
		{name: "S11 default", dest: "/tmp", scripts: "/usr/libexec/s2i", input: "default"},
		{name: "S17 label", labels: labels{"io.openshift.s2i.scripts-url": "image:///usr/libexec/s2i"}, dest: "/tmp", scripts: "/usr/libexec/s2i", input: "label io.openshift.s2i.scripts-url"},
		{name: "S17 cleaned", labels: labels{"io.openshift.s2i.scripts-url": " image:///tmp/scripts/ "}, dest: "/tmp", scripts: "/tmp/scripts", input: "label io.openshift.s2i.scripts-url"},
		{name: "S18 relative, no workdir", labels: labels{"io.openshift.s2i.scripts-url": "image://.s2i/bin"}, dest: "/tmp", scripts: "/.s2i/bin", input: "label io.openshift.s2i.scripts-url"},
		{name: "S18 relative to W", workdir: "/opt/app", labels: labels{"io.openshift.s2i.scripts-url": "image://.s2i/bin"}, dest: "/tmp", scripts: "/opt/app/.s2i/bin", input: "label io.openshift.s2i.scripts-url"},
		{name: "S18 env path relative", workdir: "/opt/app", env: []string{"STI_SCRIPTS_PATH=scripts"}, dest: "/tmp", scripts: "/opt/app/scripts", input: "ENV STI_SCRIPTS_PATH"},
		{name: "S11 order", labels: labels{"io.s2i.scripts-url": "image:///old", "io.openshift.s2i.scripts-url": "image:///new"}, env: []string{"STI_SCRIPTS_URL=image:///url"}, dest: "/tmp", scripts: "/new", input: "label io.openshift.s2i.scripts-url"},
		{name: "S11 empty label falls through", labels: labels{"io.openshift.s2i.scripts-url": " "}, env: []string{"STI_SCRIPTS_PATH=/p"}, dest: "/tmp", scripts: "/p", input: "ENV STI_SCRIPTS_PATH"},
		{name: "S23 old label", labels: labels{"io.s2i.scripts-url": "image:///old"}, dest: "/tmp", scripts: "/old", input: "label io.s2i.scripts-url", notices: 1},
		{name: "S23 env url", env: []string{"STI_SCRIPTS_URL=image:///url"}, dest: "/tmp", scripts: "/url", input: "ENV STI_SCRIPTS_URL", notices: 1},
		{name: "S19 file", labels: labels{"io.openshift.s2i.scripts-url": "file:///etc"}, code: "scripts_url_refused"},
		{name: "S20 http", labels: labels{"io.openshift.s2i.scripts-url": "http://127.0.0.1/.s2i/bin"}, code: "scripts_url_refused"},
		{name: "S21 no scheme", labels: labels{"io.openshift.s2i.scripts-url": "/usr/libexec/s2i"}, code: "builder_invalid"},
		{name: "S21 other scheme", labels: labels{"io.openshift.s2i.scripts-url": "ftp://x"}, code: "builder_invalid"},
		{name: "S21 nothing after", labels: labels{"io.openshift.s2i.scripts-url": "image://"}, code: "builder_invalid"},
		{name: "S12 destination", labels: labels{"io.openshift.s2i.destination": "/opt/s2i"}, dest: "/opt/s2i", scripts: "/usr/libexec/s2i", input: "default"},
		{name: "S12 old destination", labels: labels{"io.s2i.destination": "/opt/s2i"}, dest: "/opt/s2i", scripts: "/usr/libexec/s2i", input: "default", notices: 1},
		{name: "S12 STI_LOCATION", env: []string{"STI_LOCATION=/opt/s2i"}, dest: "/opt/s2i", scripts: "/usr/libexec/s2i", input: "default", notices: 1},
		{name: "S24 relative", workdir: "/w", labels: labels{"io.openshift.s2i.destination": "up"}, dest: "/w/up", scripts: "/usr/libexec/s2i", input: "default"},
		{name: "S24 root", labels: labels{"io.openshift.s2i.destination": "/"}, code: "builder_invalid"},
		{name: "S24 run", labels: labels{"io.openshift.s2i.destination": "/run/x"}, code: "builder_invalid"},
		{name: "S12 deep", workdir: strings.Repeat("/a", 20_000), code: "builder_invalid"},
		{name: "S12 deep destination", labels: labels{"io.openshift.s2i.destination": strings.Repeat("/a", 20_000)}, code: "builder_invalid"},
		{name: "S12 no room for scripts", labels: labels{"io.openshift.s2i.destination": strings.Repeat("/a", daeploy.MaxImageDepth)}, code: "builder_invalid"},
		{name: "S12 long name", env: []string{"STI_LOCATION=/" + strings.Repeat("a", 300)}, code: "builder_invalid"},
		{name: "S12 NUL", workdir: "/a\x00b", code: "builder_invalid"},
		{name: "S17 deep", labels: labels{"io.openshift.s2i.scripts-url": "image://" + strings.Repeat("/a", 20_000)}, code: "builder_invalid"},
		{name: "S17 long name", labels: labels{"io.openshift.s2i.scripts-url": "image:///" + strings.Repeat("a", 200<<10)}, code: "builder_invalid"},
		{name: "S17 long until it is cleaned", labels: labels{"io.openshift.s2i.scripts-url": "image://" + strings.Repeat("/bin/..", 30_000) + "/x"}, dest: "/tmp", scripts: "/x", input: "label io.openshift.s2i.scripts-url"},
		{name: "S19 long", labels: labels{"io.openshift.s2i.scripts-url": "file:///" + strings.Repeat("a", 200<<10)}, code: "scripts_url_refused"},
		{name: "S24 proc by dots", labels: labels{"io.openshift.s2i.destination": "/x/../proc"}, code: "builder_invalid"},
	} {
		t.Run(test.name, func(t *testing.T) {
			config, err := json.Marshal(map[string]any{"config": map[string]any{
				"WorkingDir": test.workdir, "Labels": test.labels, "Env": test.env,
			}})
			if err != nil {
				t.Fatal(err)
			}
			_, dest, scripts, input, notices, err := buildpipeline.Layout(config)
			if test.code != "" {
				got := daeploy.Public(err, "test")
				if got.Code != test.code || got.Hint == "" || len(got.Message) > 1000 {
					t.Errorf("code %q (%.1000v), hint %q, want %q, and words that can be read", got.Code, err, got.Hint, test.code)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if dest != test.dest || scripts != test.scripts || input != test.input || notices != test.notices {
				t.Errorf("dest %q scripts %q input %q notices %d, want %q %q %q %d",
					dest, scripts, input, notices, test.dest, test.scripts, test.input, test.notices)
			}
		})
	}
}

// S115, F84: an image's config is refused or keeps what is not understood, and what
// is read of it is a clean place inside the rootfs.
func FuzzImageConfig(f *testing.F) {
	for _, s := range []string{
		`{}`, `null`, `[]`, `{"config":null,"x":{"y":1e400}}`, `{"config":{"Labels":{"io.openshift.s2i.destination":"/x/../proc"}}}`,
		`{"config":{"WorkingDir":"/w","Env":["STI_SCRIPTS_PATH=a/../../b","=","X"],"Labels":{"io.openshift.s2i.scripts-url":"image://.s2i/bin"}},"os":"linux"}`,
		`{"config":{"Env":"A=b","User":7,"OnBuild":["RUN x"],"Healthcheck":{"Test":[]}}}`, `{"config":{"config":1},"CONFIG":{"User":"0"}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		workdir, dest, scripts, _, _, err := buildpipeline.Layout(in)
		if err == nil {
			for _, p := range []string{dest, scripts} {
				if !strings.HasPrefix(p, "/") || path.Clean(p) != p || daeploy.CheckImagePath(p) != nil {
					t.Errorf("%q: %q is no clean absolute path (WORKDIR %q)", in, p, workdir)
				}
			}
		}
		out, err := buildpipeline.RewriteConfig(in, "StopSignal", "SIGTERM")
		if err != nil {
			return
		}
		before, after := object(t, in), object(t, out)
		delete(before, "config")
		delete(after, "config")
		if diff := cmp.Diff(before, after); diff != "" {
			t.Errorf("%q is kept as (-want +got):\n%s", in, diff)
		}
		again, err := buildpipeline.RewriteConfig(out, "StopSignal", "SIGTERM")
		if err != nil || !bytes.Equal(again, out) {
			t.Errorf("%q is written as %q, and then as %q, %v", in, out, again, err)
		}
	})
}

// object reads JSON with its numbers as they are written.
func object(t *testing.T, text []byte) (o map[string]any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&o); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return o
}
