package builderimage_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container/builderimage"
)

// small is a recipe for the tree of tinyBase.
func small() builderimage.Recipe {
	return builderimage.Recipe{
		Name: "daeploy.local/builders/tiny:1", DisplayName: "Tiny", Description: "A builder for tests", Tags: []string{"builder", "tiny"},
		Suite: "bookworm", Packages: []string{"bb", "aa"},
		Epoch:   time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		User:    builderimage.User{Name: "default", UID: 1001, GID: 0, Home: "/opt/app-root/src"},
		Workdir: "/opt/app-root/src",
		Env:     []string{"PATH=/usr/bin:/bin", "HOME=/opt/app-root/src"},
		Labels:  map[string]string{"io.openshift.s2i.assemble-user": "0"},
		Port:    8080,
		Directories: []builderimage.Directory{
			{Path: "/opt/app-root/src", UID: 1001, GID: 0, Mode: 0o775},
		},
		Remove: []string{"usr/share/doc/*/*"},
		Keep:   []string{"usr/share/doc/*/copyright"},
		Detect: []string{"requirements.txt", "setup.py"},
		Cache:  "/opt/app-root/cache",
	}
}

func TestValidate(t *testing.T) {
	if err := small().Validate(); err != nil {
		t.Fatalf("the good recipe: %v", err)
	}
	type R = builderimage.Recipe
	for name, tt := range map[string]struct {
		change func(*R)
		want   string // part of the message
	}{
		"short name":            {func(r *R) { r.Name = "python" }, `name: "python" is not a complete name`},
		"no tag":                {func(r *R) { r.Name = "daeploy.local/builders/python" }, "name: "},
		"upper-case name":       {func(r *R) { r.Name = "daeploy.local/Python:1" }, "name: "},
		"digest":                {func(r *R) { r.Name += daeploy.ImageRef("@sha256:" + strings.Repeat("0", 64)) }, "name: "},
		"no display name":       {func(r *R) { r.DisplayName = "" }, "display_name: "},
		"two lines":             {func(r *R) { r.Description = "a\nb" }, "description: "},
		"tag with comma":        {func(r *R) { r.Tags = []string{"a,b"} }, `tags: "a,b"`},
		"port":                  {func(r *R) { r.Port = 65536 }, "port: 65536"},
		"detect outside":        {func(r *R) { r.Detect = []string{"../x"} }, "detect: "},
		"relative cache":        {func(r *R) { r.Cache = "cache" }, `cache: "cache"`},
		"unclean cache":         {func(r *R) { r.Cache = "/opt/../etc" }, "cache: "},
		"extra suite as script": {func(r *R) { r.ExtraSuites = []string{"a'; b"} }, "extra_suites: "},
		"no epoch":              {func(r *R) { r.Epoch = time.Time{} }, "epoch: "},
		"epoch with parts":      {func(r *R) { r.Epoch = r.Epoch.Add(1) }, "epoch: "},
		"suite as option":       {func(r *R) { r.Suite = "--help" }, `suite: "--help"`},
		"no suite":              {func(r *R) { r.Suite = "" }, "suite: "},
		"suite as path":         {func(r *R) { r.Suite = "../x" }, "suite: "},
		"component":             {func(r *R) { r.Components = []string{"main,x"} }, "components: "},
		"package as option":     {func(r *R) { r.Packages = []string{"-x"} }, `packages: "-x"`},
		"package as pattern":    {func(r *R) { r.Packages = []string{"?essential"} }, "packages: "},
		"package as file":       {func(r *R) { r.Packages = []string{"/tmp/x.deb"} }, "packages: "},
		"two packages in one":   {func(r *R) { r.Packages = []string{"a1,b1"} }, "packages: "},
		"hook as path":          {func(r *R) { r.BaseHooks = []string{"../../x"} }, "base_hooks: "},
		"hook as shell":         {func(r *R) { r.BaseHooks = []string{"a;b"} }, "base_hooks: "},
		"root":                  {func(r *R) { r.User.UID = 0 }, "user.uid: 0"},
		"uid above 2^31":        {func(r *R) { r.User.UID = 1 << 31 }, "user.uid: "},
		"gid above 2^31":        {func(r *R) { r.User.GID = 1 << 31 }, "user.gid: "},
		"user with colon":       {func(r *R) { r.User.Name = "a:b" }, "user.name: "},
		"home with colon":       {func(r *R) { r.User.Home = "/a:b" }, "user.home: "},
		"home with line feed":   {func(r *R) { r.User.Home = "/a\nroot" }, "user.home: "},
		"relative home":         {func(r *R) { r.User.Home = "a" }, "user.home: "},
		"env without =":         {func(r *R) { r.Env = []string{"A"} }, `env: "A"`},
		"env name":              {func(r *R) { r.Env = []string{"A B=1"} }, "env: "},
		"env value":             {func(r *R) { r.Env = []string{"A=1\n2"} }, "env: the value of A"},
		"env twice":             {func(r *R) { r.Env = []string{"A=1", "A=2"} }, "env: A is given twice"},
		"env of ours (S45)":     {func(r *R) { r.Env = []string{"STI_SCRIPTS_PATH=/x"} }, "env: STI_SCRIPTS_PATH"},
		"label name":            {func(r *R) { r.Labels = map[string]string{"A B": ""} }, "labels: "},
		"label value":           {func(r *R) { r.Labels = map[string]string{"a": "\x1b"} }, "labels: "},
		"label of ours (S11)":   {func(r *R) { r.Labels = map[string]string{"io.openshift.s2i.scripts-url": "image:///x"} }, "labels: "},
		"label of port":         {func(r *R) { r.Labels = map[string]string{"io.openshift.expose-services": "1:http"} }, "labels: "},
		"relative directory":    {func(r *R) { r.Directories[0].Path = "opt" }, "directories: "},
		"unclean directory":     {func(r *R) { r.Directories[0].Path = "/opt/../etc" }, "directories: "},
		"the root as directory": {func(r *R) { r.Directories[0].Path = "/" }, "directories: "},
		"set-uid directory":     {func(r *R) { r.Directories[0].Mode = 0o4755 }, "directories: mode 04755"},
		"directory owner":       {func(r *R) { r.Directories[0].UID = 1 << 31 }, "directories: the owner"},
		"directory twice":       {func(r *R) { r.Directories = append(r.Directories, r.Directories[0]) }, "given twice"},
		"workdir not made":      {func(r *R) { r.Workdir = "/srv" }, `workdir: "/srv"`},
		"absolute pattern":      {func(r *R) { r.Remove = []string{"/usr"} }, "remove: "},
		"pattern outside":       {func(r *R) { r.Keep = []string{"../x"} }, "keep: "},
		"only outside":          {func(r *R) { r.Only = []string{"bin/sh", "../x"} }, "only: "},
		"broken pattern":        {func(r *R) { r.Remove = []string{"a["} }, "remove: "},
	} {
		t.Run(name, func(t *testing.T) {
			r := small()
			tt.change(&r)
			err := r.Validate()
			var e *daeploy.Error
			if !errors.As(err, &e) || e.Kind != daeploy.Invalid || e.Code != "recipe_invalid" {
				t.Fatalf("Validate() = %v; want an Error recipe_invalid", err)
			}
			if !strings.HasPrefix(e.Message, "builder.toml: ") || !strings.Contains(e.Message, tt.want) {
				t.Errorf("message %q does not contain %q", e.Message, tt.want)
			}
		})
	}
}
