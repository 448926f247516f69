package container_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy/container/containertest"
)

// C30: S40, S41, S77. Whatever the image has of what is mounted, the layer has
// no more of it, and all that assemble wrote beside it.
func TestMountsOverTheImagesOwn(t *testing.T) {
	e := newEngine(t)
	bundle := filepath.Join(t.TempDir(), "ca.pem")
	must(t, os.WriteFile(bundle, []byte("-----BEGIN CERTIFICATE-----\n"), 0o600))
	own := []containertest.File{
		{Path: "/etc/resolv.conf", Content: "image\n"},
		{Path: "/etc/hosts", Content: "image\n"},
		{Path: "/etc/hostname", Content: "image\n"},
		{Path: "/run/daeploy", Dir: true},
		{Path: "/run/daeploy/ca.pem", Content: "image\n"},
	}
	for name, files := range map[string][]containertest.File{"with": own, "without": nil} {
		w, base := workspace(t, e, imported(t, e, containertest.Image{
			Name: "daeploy.local/builders/mounts:1", Shell: true, Layers: [][]containertest.File{files},
		}))
		p := script(
			"cat /run/daeploy/ca.pem; head -n 1 /etc/hosts; cat /etc/hostname; grep -c image /etc/resolv.conf",
			"for f in /run/daeploy/ca.pem /etc/resolv.conf /etc/hosts /etc/hostname; do echo x 2>/dev/null >$f && echo $f is writable; done",
			"echo x >/run/x; mkdir /run/lock; ls /run/secrets 2>/dev/null",
		)
		p.CABundle = bundle
		out, _ := run(t, w, p)
		if diff := cmp.Diff("-----BEGIN CERTIFICATE-----\n127.0.0.1 localhost\nblog-1\n0\n", out); diff != "" {
			t.Errorf("%s: in the build (-want +got):\n%s", name, diff)
		}
		_, layer := commit(t, w, base, nil)
		var got []string
		for _, entry := range layerNames(t, layer) {
			if entry != "etc/" { // its time has changed
				got = append(got, entry)
			}
		}
		if diff := cmp.Diff([]string{"run/", "run/lock/", "run/x"}, got); diff != "" {
			t.Errorf("%s: layer (-want +got):\n%s", name, diff)
		}
	}
}
