package buildpipeline_test

import (
	"errors"
	"path"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/buildpipeline"
)

// S104, S105.
func TestParseArtifacts(t *testing.T) {
	for item, want := range map[string]daeploy.Artifact{
		"/tmp/app.war":             {From: "/tmp/app.war", To: "/r/app.war"},
		"/tmp/app.war:.":           {From: "/tmp/app.war", To: "/r/app.war"},
		"/tmp/app.war:":            {From: "/tmp/app.war", To: "/r/app.war"},
		"/tmp/app.war:app/dist":    {From: "/tmp/app.war", To: "/r/app/dist/app.war"},
		"/tmp/app.war:./app//dist": {From: "/tmp/app.war", To: "/r/app/dist/app.war"},
		"/tmp/app.war:a/../b":      {From: "/tmp/app.war", To: "/r/b/app.war"},
		"/tmp/app-0.1.war:app.war": {From: "/tmp/app-0.1.war", To: "/r/app.war/app-0.1.war"},
		"/opt/data":                {From: "/opt/data", To: "/r/data"},
		"/opt/data/":               {From: "/opt/data", To: "/r/data"},
		"/opt//x/../data/":         {From: "/opt/data", To: "/r/data"},
		"/a:b:c":                   {From: "/a:b", To: "/r/c/a:b"},
		"/with blank:a blank":      {From: "/with blank", To: "/r/a blank/with blank"},
		"/x:..data":                {From: "/x", To: "/r/..data/x"},
	} {
		got, err := buildpipeline.ParseArtifacts([]string{item}, "/r")
		if diff := cmp.Diff([]daeploy.Artifact{want}, got); err != nil || diff != "" {
			t.Errorf("%q: %v (-want +got):\n%s", item, err, diff)
		}
	}
	got, err := buildpipeline.ParseArtifacts([]string{"/a", "/b/a:x"}, "/")
	if diff := cmp.Diff([]daeploy.Artifact{{From: "/a", To: "/a"}, {From: "/b/a", To: "/x/a"}}, got); err != nil || diff != "" {
		t.Errorf("two items below /: %v (-want +got):\n%s", err, diff)
	}
}

// S103, S104, S106.
func TestBadArtifacts(t *testing.T) {
	for _, test := range []struct {
		items   []string
		workdir string
		want    string
	}{
		{nil, "/r", "there is no list"},
		{[]string{""}, "/r", `"": the source is not an absolute path`},
		{[]string{"rel/path"}, "/r", "not an absolute path"},
		{[]string{":/abs"}, "/r", "the source is not an absolute path"},
		{[]string{"/"}, "/r", "the whole root"},
		{[]string{"/x/..:y"}, "/r", "the whole root"},
		{[]string{"/x:/abs"}, "/r", "the destination is not a relative path"},
		{[]string{"/x:.."}, "/r", "leaves the working directory"},
		{[]string{"/x:a/../../b"}, "/r", "leaves the working directory"},
		{[]string{"/x*"}, "/r", "wildcards"},
		{[]string{"/x?:y"}, "/r", "wildcards"},
		{[]string{"/x:[y]"}, "/r", "wildcards"},
		{[]string{"/x\x00"}, "/r", "NUL"},
		{[]string{"/x", "/y/x:."}, "/r", `"/x" and "/y/x:." both land on /r/x`},
		{[]string{"/x:proc"}, "/", "it lands in /proc"},
		{[]string{"/sys"}, "/", "it lands in /sys"},
		{[]string{"/x\x1b[2J:a"}, "/r", "wildcards"},
		{[]string{strings.Repeat("/a", 129)}, "/r", "the source is 129 directories deep; at most 128 are allowed"},
		{[]string{"/x:" + strings.Repeat("a/", 128)}, "/r", "where it lands is 130 directories deep"},
		{[]string{"/" + strings.Repeat("a", 200<<10)}, "/r", "the source has 204801 bytes"},
	} {
		_, err := buildpipeline.ParseArtifacts(test.items, test.workdir)
		var e *daeploy.Error
		if !errors.As(err, &e) || e.Code != "runtime_artifacts_invalid" || !strings.Contains(e.Message, test.want) || buildpipeline.Plain(e.Message) != e.Message {
			t.Errorf("%q: %v, want runtime_artifacts_invalid with %q", test.items, err, test.want)
		}
	}
}

// Whatever an image or a source writes, nothing lands outside the working
// directory, and no two items land on one path.
func FuzzParseArtifacts(f *testing.F) {
	for _, seed := range []string{"/a;/b:c", "/tmp/app.war:app/dist", "/x:../..", "/..:x", "/./x/:/", ":", ";", "/a:b:c;/a", "/x:a/../../b"} {
		f.Add(seed, "/opt/app")
	}
	f.Add("/etc:.", "/")
	f.Fuzz(func(t *testing.T, list, workdir string) {
		workdir = path.Join("/", workdir)
		got, err := buildpipeline.ParseArtifacts(strings.Split(list, ";"), workdir)
		if err != nil {
			var e *daeploy.Error
			if !errors.As(err, &e) || e.Code != "runtime_artifacts_invalid" {
				t.Fatalf("%q: %v", list, err)
			}
			return
		}
		seen := map[string]bool{}
		for _, a := range got {
			if !path.IsAbs(a.From) || path.Clean(a.From) != a.From || a.From == "/" {
				t.Errorf("%q comes from %q", list, a.From)
			}
			if path.Clean(a.To) != a.To || !strings.HasPrefix(a.To, strings.TrimSuffix(workdir, "/")+"/") || seen[a.To] {
				t.Errorf("%q lands on %q, below %q", list, a.To, workdir)
			}
			seen[a.To] = true
		}
	})
}
