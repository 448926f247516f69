package publish_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/publish"
)

var commit = daeploy.Revision(strings.Repeat("4f2c1ab9", 5))

func namesOf(t testing.TB, target publish.Target, ref string) []string {
	t.Helper()
	p := newPublisher(t, nil, nil, target)
	var out []string
	for _, name := range p.Names(&daeploy.Build{ID: daeploy.BuildID{App: "blog", Number: 17}, Commit: commit, Ref: ref}) {
		out = append(out, string(name))
	}
	return out
}

func TestNames(t *testing.T) {
	const repository = "registry.example.org:5000/team/{app}"
	tests := map[string]struct {
		target publish.Target
		ref    string
		want   []string
	}{
		"nowhere":   {publish.Target{}, "refs/heads/main", nil},
		"default":   {publish.Target{Repository: repository}, "refs/heads/main", []string{"17", string(commit), "main", "latest"}},
		"chosen":    {publish.Target{Repository: repository, Tags: []string{"v{number}-{short_commit}", "stable"}}, "refs/heads/main", []string{"v17-4f2c1ab", "stable"}},
		"slashes":   {publish.Target{Repository: repository, Tags: []string{"{branch}"}}, "refs/heads/feature/x#1", []string{"feature-x-1"}},
		"a number":  {publish.Target{Repository: repository, Tags: []string{"{number}", "{branch}"}}, "refs/heads/16", []string{"17", "branch-16"}},
		"a commit":  {publish.Target{Repository: repository, Tags: []string{"{branch}"}}, "refs/heads/4f2c1ab", []string{"branch-4f2c1ab"}},
		"latest":    {publish.Target{Repository: repository, Tags: []string{"{branch}"}}, "refs/heads/latest", []string{"branch-latest"}},
		"not ASCII": {publish.Target{Repository: repository, Tags: []string{"{branch}"}}, "refs/heads/größe", []string{"gr--e"}},
		"a dot":     {publish.Target{Repository: repository, Tags: []string{"{branch}"}}, "refs/heads/.x", []string{"branch-.x"}},
		"a tag":     {publish.Target{Repository: repository, Tags: []string{"{branch}"}}, "refs/tags/v1.0", []string{"v1.0"}},
		"twice":     {publish.Target{Repository: repository, Tags: []string{"{branch}", "main"}}, "refs/heads/main", []string{"main"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var want []string
			for _, tag := range test.want {
				want = append(want, "registry.example.org:5000/team/blog:"+tag)
			}
			if diff := cmp.Diff(want, namesOf(t, test.target, test.ref)); diff != "" {
				t.Errorf("names (-want +got):\n%s", diff)
			}
		})
	}
}

// The image of a host that tests itself is nobody's, whatever is set for its app.
func TestSelfTestStays(t *testing.T) {
	target := publish.Target{Repository: "registry.example.org/team/{app}"}
	p := newPublisher(t, nil, nil, target)
	p.Adopt(publish.Rules{Target: target, Apps: map[daeploy.AppName]publish.Target{daeploy.SelfTest: target}})
	b := daeploy.Build{ID: daeploy.BuildID{App: daeploy.SelfTest, Number: 1}, Commit: commit, Ref: "refs/heads/main"}
	if names := p.Names(&b); names != nil {
		t.Errorf("the image of the test build is to be called %q", names)
	}
}

// Whatever a branch is called, its name makes a tag, and none of another build's.
func FuzzBranchTag(f *testing.F) {
	for _, branch := range []string{"main", "latest", "16", "feature/x", "-", "..", "größe", "\x1b[2J", strings.Repeat("x", 300), ""} {
		f.Add(branch)
	}
	tag := regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)
	f.Fuzz(func(t *testing.T, branch string) {
		names := namesOf(t, publish.Target{Repository: "r.example.org/{app}", Tags: []string{"{branch}"}}, "refs/heads/"+branch)
		for _, name := range names {
			_, got, _ := strings.Cut(name, ":")
			if !tag.MatchString(got) || got == "latest" || strings.Trim(got, "0123456789abcdef") == "" {
				t.Errorf("branch %q makes the tag %q", branch, got)
			}
		}
	})
}

func TestCheck(t *testing.T) {
	tests := map[string]struct {
		target publish.Target
		all    bool
		want   string
	}{
		"nowhere":      {publish.Target{Tags: []string{"what ever"}}, true, ""},
		"good":         {publish.Target{Repository: "registry.example.org/team/{app}", Tags: publish.DefaultTags, Compression: "zstd"}, true, ""},
		"of one app":   {publish.Target{Repository: "registry.example.org:5000/blog"}, false, ""},
		"shared":       {publish.Target{Repository: "registry.example.org/team"}, true, "needs {app}"},
		"no host":      {publish.Target{Repository: "team/{app}"}, true, "no repository of a registry"},
		"with a tag":   {publish.Target{Repository: "registry.example.org/{app}:1"}, true, "no repository of a registry"},
		"with scheme":  {publish.Target{Repository: "https://registry.example.org/{app}"}, true, "no repository of a registry"},
		"upper case":   {publish.Target{Repository: "registry.example.org/Team/{app}"}, true, "no repository of a registry"},
		"this host":    {publish.Target{Repository: "daeploy.local/{app}"}, true, "is this host itself"},
		"unknown word": {publish.Target{Repository: "r.example.org/{app}", Tags: []string{"{tag}"}}, true, `"{tag}" is no tag`},
		"app in a tag": {publish.Target{Repository: "r.example.org/{app}", Tags: []string{"{app}"}}, true, `"{app}" is no tag`},
		"empty tag":    {publish.Target{Repository: "r.example.org/{app}", Tags: []string{""}}, true, `"" is no tag`},
		"many tags":    {publish.Target{Repository: "r.example.org/{app}", Tags: make([]string, 17)}, true, "at most 16"},
		"compression":  {publish.Target{Repository: "r.example.org/{app}", Compression: "xz"}, true, "none of gzip, zstd"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			err := test.target.Check(test.all)
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("Check = %v, want %q", err, test.want)
			}
		})
	}
}
