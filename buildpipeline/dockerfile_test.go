package buildpipeline_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/buildpipeline"
)

func TestDockerfile(t *testing.T) {
	const config = `{"config":{"User":"1001","WorkingDir":"/opt/app-root/src","Env":["A=1"],
		"Labels":{"io.openshift.s2i.scripts-url":"image:///usr/libexec/s2i"}}}`
	builder := buildpipeline.DockerBuilder{Ref: "example.org/python:3", Written: "example.org/python:3", Config: []byte(config)}
	commit := daeploy.Commit{
		ID: "4f2c1ab94f2c1ab94f2c1ab94f2c1ab94f2c1ab9", Author: "Anna <anna@example.org>", Subject: "Fix\n\"$cart\" \\",
		Authored: time.Date(2026, 7, 22, 13, 34, 51, 0, time.UTC),
	}
	rooted := builder
	rooted.Config = []byte(strings.Replace(config, `"Labels":{`, `"Labels":{"io.openshift.s2i.assemble-user":"0",`, 1))
	unknown := builder
	unknown.Config = nil
	told := unknown
	told.Scripts, told.AssembleUser, told.Owner = "/s2i", "0", "0:0"
	for _, test := range []struct {
		name    string
		builder buildpipeline.DockerBuilder
		source  buildpipeline.Checkout
		want    []string // instructions, in order
		notices int
	}{
		{
			name: "as the builder is", builder: builder, source: buildpipeline.Checkout{},
			want: []string{
				"FROM example.org/python:3", `LABEL io.openshift.s2i.build.image="example.org/python:3"`,
				`ENV STI_SCRIPTS_PATH="/usr/libexec/s2i"`, `COPY --chown=1001:0 ["upload/src/", "/tmp/src/"]`,
				`RUN ["/usr/libexec/s2i/assemble"]`, `CMD ["/usr/libexec/s2i/run"]`,
			},
		},
		{
			name: "hooks, environment, commit, another user", builder: rooted,
			source: buildpipeline.Checkout{
				File:  buildpipeline.AppFile{ContextDir: "services/api", Env: map[string]string{"B": "toml"}},
				Env:   map[string]string{"B": "file", "A": `a "b" \ $C`, "export D": "x", "E": "1\nUSER 0"},
				Hooks: map[string][]byte{".s2i/bin/assemble": []byte("echo\n"), ".sti/bin/assemble": []byte("#!/bin/sh\n"), ".sti/bin/run": []byte("#!/bin/sh\n")}, Commit: commit, Branch: "main",
			},
			want: []string{
				"FROM example.org/python:3",
				`LABEL io.openshift.s2i.build.commit.author="Anna <anna@example.org>"`,
				`io.openshift.s2i.build.commit.date="Wed Jul 22 13:34:51 2026 +0000"`,
				`io.openshift.s2i.build.commit.id="4f2c1ab94f2c1ab94f2c1ab94f2c1ab94f2c1ab9"`,
				`io.openshift.s2i.build.commit.message="Fix \"\$cart\" \\"`,
				`io.openshift.s2i.build.commit.ref="main"`,
				`io.openshift.s2i.build.image="example.org/python:3"`,
				`io.openshift.s2i.build.source-context-dir="services/api"`,
				`ENV A="a \"b\" \\ \$C"`, `B="toml"`, `STI_SCRIPTS_PATH="/usr/libexec/s2i"`,
				`COPY --chown=0:0 ["upload/src/", "/tmp/src/"]`, `COPY --chown=0:0 ["upload/scripts/", "/tmp/scripts/"]`,
				"USER 0", `RUN ["/bin/sh", "/tmp/scripts/assemble"]`, "USER 1001", `CMD ["/tmp/scripts/run"]`,
			},
			notices: 2,
		},
		{
			name: "a builder that is not known", builder: unknown,
			want: []string{
				"FROM example.org/python:3", `LABEL io.openshift.s2i.build.image="example.org/python:3"`,
				`COPY --chown=1001:0 ["upload/src/", "/tmp/src/"]`, `RUN ["/usr/libexec/s2i/assemble"]`, `CMD ["/usr/libexec/s2i/run"]`,
			},
			notices: 1,
		},
		{
			name: "a builder that flags tell of", builder: told,
			want: []string{
				"FROM example.org/python:3", `LABEL io.openshift.s2i.build.image="example.org/python:3"`,
				`COPY --chown=0:0 ["upload/src/", "/tmp/src/"]`, "USER 0", `RUN ["/s2i/assemble"]`, `CMD ["/s2i/run"]`,
			},
			notices: 1,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			text, notices, err := buildpipeline.Dockerfile(test.builder, test.source)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for line := range strings.Lines(text) {
				line = strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(line), " \\"))
				if line != "" && !strings.HasPrefix(line, "#") {
					got = append(got, line)
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("instructions (-want +got):\n%s", diff)
			}
			if len(notices) != test.notices {
				t.Errorf("notices %q, want %d", notices, test.notices)
			}
			if !strings.HasPrefix(text, "# Made by `daeploy dockerfile`.") {
				t.Errorf("the text begins %q", text[:40])
			}
		})
	}
}

func TestDockerfileRefusals(t *testing.T) {
	for name, test := range map[string]struct {
		config string
		file   buildpipeline.AppFile
		code   string
	}{
		"S25":                    {`{"config":{"OnBuild":["RUN true"]}}`, buildpipeline.AppFile{}, "builder_onbuild"},
		"S19":                    {`{"config":{"Labels":{"io.openshift.s2i.scripts-url":"file:///etc"}}}`, buildpipeline.AppFile{}, "scripts_url_refused"},
		"no config":              {`[]`, buildpipeline.AppFile{}, "builder_invalid"},
		"S24":                    {`{"config":{"Labels":{"io.openshift.s2i.destination":"/proc/x"}}}`, buildpipeline.AppFile{}, "builder_invalid"},
		"a path of instructions": {`{}`, buildpipeline.AppFile{ContextDir: "a\nRUN evil"}, "builder_invalid"},
		"a destination of them":  {`{"config":{"Labels":{"io.openshift.s2i.destination":"/a\nUSER 0"}}}`, buildpipeline.AppFile{}, "builder_invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			text, _, err := buildpipeline.Dockerfile(buildpipeline.DockerBuilder{Ref: "example.org/b:1", Config: []byte(test.config)}, buildpipeline.Checkout{File: test.file})
			var e *daeploy.Error
			if !errors.As(err, &e) || e.Code != test.code {
				t.Errorf("Dockerfile: %v, want %s\n%s", err, test.code, text)
			}
		})
	}
}

// Section 8: two stages.
func TestDockerfileOntoRuntime(t *testing.T) {
	runtime := buildpipeline.DockerBuilder{Ref: "example.org/run:1", Written: "example.org/run:1", Config: []byte(`{"config":{"User":"1001","WorkingDir":"/srv",
		"Labels":{"io.openshift.s2i.scripts-url":"image:///usr/run","io.openshift.s2i.assemble-input-files":"/app/x;/opt/data:lib"}}}`)}
	builder := buildpipeline.DockerBuilder{
		Ref: "example.org/go:1", Written: "example.org/go:1", Runtime: &runtime,
		Config: []byte(`{"config":{"Labels":{"io.openshift.s2i.scripts-url":"image:///usr/libexec/s2i"}}}`),
	}
	source := buildpipeline.Checkout{
		File:  buildpipeline.AppFile{Runtime: buildpipeline.RuntimeFile{Image: "example.org/run:1"}, Env: map[string]string{"A": "1"}},
		Hooks: map[string][]byte{".s2i/bin/run": []byte("#!/bin/sh\n")},
	}
	text, notices, err := buildpipeline.Dockerfile(builder, source)
	if err != nil || len(notices) != 1 || !strings.Contains(notices[0], "/usr/run/assemble-runtime") {
		t.Fatalf("Dockerfile: %q, %v", notices, err)
	}
	_, text, _ = strings.Cut(text, "\n\n")
	want := `FROM example.org/go:1 AS builder
ENV A="1" \
      STI_SCRIPTS_PATH="/usr/libexec/s2i"
COPY --chown=0:0 ["upload/src/", "/tmp/src/"]
COPY --chown=0:0 ["upload/scripts/", "/tmp/scripts/"]
RUN ["/usr/libexec/s2i/assemble"]

FROM example.org/run:1
LABEL io.openshift.s2i.build.image="example.org/go:1"
ENV A="1" \
      STI_SCRIPTS_PATH="/usr/run"
COPY --from=builder --chown=1001:0 ["/app/x", "/srv/x"]
COPY --from=builder --chown=1001:0 ["/opt/data", "/srv/lib/data"]
COPY --chown=1001:0 ["upload/scripts/run", "/srv/scripts/run"]
CMD ["/srv/scripts/run"]
`
	if diff := cmp.Diff(want, text); diff != "" {
		t.Errorf("two stages (-want +got):\n%s", diff)
	}
	runtime.Config = []byte(`{"config":{"OnBuild":["RUN true"]}}`)
	if _, _, err := buildpipeline.Dockerfile(builder, source); code(err) != "runtime_onbuild" {
		t.Errorf("S101: %v", err)
	}
	runtime.Config = []byte(`{}`)
	if _, _, err := buildpipeline.Dockerfile(builder, source); code(err) != "runtime_artifacts_invalid" {
		t.Errorf("S103: %v", err)
	}
	runtime.Config = nil
	if _, _, err := buildpipeline.Dockerfile(builder, source); code(err) != "runtime_artifacts_invalid" || !strings.Contains(err.Error(), "not known here") {
		t.Errorf("an image that nobody knows: %v", err)
	}
}

func code(err error) string {
	if e, ok := errors.AsType[*daeploy.Error](err); ok {
		return e.Code
	}
	return ""
}

// FuzzDockerfile: no value of a stranger becomes an instruction.
func FuzzDockerfile(f *testing.F) {
	f.Add("A", "x\nUSER 0", "dir\nRUN x", "subject \\\nRUN x", "1001\nRUN x")
	f.Add("A\nB", "${PATH} \\", "d$x", "\"", "a b")
	f.Fuzz(func(t *testing.T, name, value, dir, subject, user string) {
		text, _, err := buildpipeline.Dockerfile(
			buildpipeline.DockerBuilder{Ref: "example.org/b:1", Written: "b", AssembleUser: user},
			buildpipeline.Checkout{
				File: buildpipeline.AppFile{ContextDir: dir, Env: map[string]string{name: value}}, Commit: daeploy.Commit{ID: "a", Subject: subject, Author: value}, Branch: name,
			})
		if err != nil {
			return
		}
		count := map[string]int{}
		open := false // the line before asked for more
		for line := range strings.Lines(text) {
			line = strings.TrimSuffix(line, "\n")
			if word, _, _ := strings.Cut(line, " "); !open && word != "#" && word != "" {
				count[word]++
			}
			open = strings.HasSuffix(line, "\\")
		}
		for word, n := range count {
			if most := map[string]int{"FROM": 1, "LABEL": 1, "ENV": 1, "COPY": 1, "USER": 1, "RUN": 1, "CMD": 1}[word]; n > most {
				t.Errorf("%d of %q in\n%s", n, word, text)
			}
		}
	})
}
