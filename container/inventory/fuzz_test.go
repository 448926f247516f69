package inventory_test

import (
	"testing"

	"github.com/daeploy/daeploy/container/inventory"
)

// Whatever an image has in the place of a package manager's files, reading it ends,
// and each package has a name and a kind.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"Package: libc6\nStatus: install ok installed\nSource: glibc (2)\nVersion: 1\n continued\n\nPackage: a\nVersion: b\n",
		"P:musl\nV:1.2.5-r0\nA:x86_64\no:musl\n\n", "Metadata-Version: 2.1\nName: flask\nVersion: 3\n\nName: x",
		`{"name": "@a/b", "version": "1", "license": {"type": "MIT"}}`, "\n\n\n", ": :\n:", "Package:", "\xff\x00\n\n", `{"name": 1}`, `[[[[[[[[`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, p := range inventory.Parse(text) {
			if p.Kind == "" || p.Name == "" {
				t.Errorf("%q gives %+v", text, p)
			}
		}
	})
}
