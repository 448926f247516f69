package container_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container/containertest"
)

const dpkgStatus = `Package: libc6
Status: install ok installed
Architecture: amd64
Source: glibc (2.36-9)
Version: 2.36-9+deb12u10
Description: a library
 Version: 9
 .

Package: gone
Status: deinstall ok config-files
Version: 1
Architecture: all
`

// What package managers have recorded is found in all layers of an image, and what
// a layer above has removed is not.
func TestInventory(t *testing.T) {
	e := newEngine(t)
	file := func(path, content string) containertest.File { return containertest.File{Path: path, Content: content} }
	base := imported(t, e, containertest.Image{Shell: true, Layers: [][]containertest.File{{
		{Path: "/usr/lib", Dir: true},
		file("/usr/lib/os-release", "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\nVERSION_ID=\"12\"\n"),
		{Path: "/etc/os-release", Link: "../usr/lib/os-release"},
		file("/var/lib/dpkg/status", dpkgStatus),
		file("/var/lib/dpkg/status.d/tzdata", "Package: tzdata\nVersion: 2025a\nArchitecture: all\n"),
		file("/lib/apk/db/installed", "C:Q1x=\nP:musl\nV:1.2.5-r0\nA:x86_64\nL:MIT\no:musl\n\nP:musl-utils\nV:1.2.5-r0\nA:x86_64\nL:MIT\no:musl\n"),
		file("/opt/app/lib/python3.12/site-packages/flask-3.0.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: Flask\nVersion: 3.0.0\nLicense-Expression: BSD-3-Clause\n\nName: not this\n"),
		file("/opt/app/lib/python3.12/site-packages/removed-1.dist-info/METADATA", "Name: removed\nVersion: 1\n"),
		file("/opt/app/node_modules/@babel/core/package.json", `{"name": "@babel/core", "version": "7.0.0", "license": {"type": "MIT"}}`),
		file("/opt/app/node_modules/ms/package.json", `{"name": "ms", "version": "2.1.3", "license": "MIT"}`),
		file("/opt/app/node_modules/ms/node_modules/ms/package.json", `{"name": "ms", "version": "2.0.0", "license": "MIT"}`),
		file("/opt/app/node_modules/ms/dist/package.json", `{"type": "module"}`),
		file("/opt/app/node_modules/broken/package.json", `{"name": `),
		file("/opt/app/package.json", `{"name": "the-app", "version": "1.0.0"}`),
	}}})
	w, from := workspace(t, e, base)
	must(t, w.Remove(t.Context(), "/opt/app/lib/python3.12/site-packages/removed-1.dist-info"))
	must(t, w.Put("/opt/app/node_modules/evil/package.json", daeploy.File{Mode: 0o644}, strings.NewReader(`{"name": "evil\u001b[2J", "version": "1"}`)))
	must(t, w.Symlink("/opt/app/node_modules/linked", "/etc", daeploy.File{}))
	image, _ := commit(t, w, from, nil)

	got, err := e.Inventory(t.Context(), image.Ref)
	must(t, err)
	if diff := cmp.Diff(daeploy.OSRelease{ID: "debian", Version: "12", Name: "Debian GNU/Linux 12 (bookworm)"}, got.OS); diff != "" {
		t.Errorf("the system (-want +got):\n%s", diff)
	}
	var list []string
	for _, p := range got.Packages {
		list = append(list, strings.TrimSpace(fmt.Sprintf("%s %s %s %s %s %s", p.Kind, p.Name, p.Version, p.Arch, p.Source, p.License)))
	}
	want := []string{
		"apk musl 1.2.5-r0 x86_64  MIT", "apk musl-utils 1.2.5-r0 x86_64 musl MIT",
		"deb libc6 2.36-9+deb12u10 amd64 glibc", "deb tzdata 2025a all",
		"npm @babel/core 7.0.0", "npm ms 2.0.0   MIT", "npm ms 2.1.3   MIT",
		"pypi Flask 3.0.0   BSD-3-Clause",
	}
	if diff := cmp.Diff(want, list); diff != "" {
		t.Errorf("packages (-want +got):\n%s", diff)
	}
	if !strings.Contains(got.Missing, "/opt/app/node_modules/evil/package.json has words that are no names") {
		t.Errorf("missing: %q", got.Missing)
	}

	all, err := client(t).LeasesService().List(t.Context())
	must(t, err)
	for _, l := range all {
		if strings.Contains(l.ID, "inventory") {
			t.Errorf("lease %s is left", l.ID)
		}
	}
	if _, err := e.Inventory(t.Context(), "daeploy.local/inventory:99"); daeploy.KindOf(err) != daeploy.NotFound {
		t.Errorf("of no image: %v", err)
	}
}
