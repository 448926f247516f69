package inventory

import "github.com/daeploy/daeploy"

// Parse reads a text as each of the formats.
func Parse(text []byte) []daeploy.Package {
	list := append(parseDpkg(text), parseApk(text)...)
	for _, one := range []func([]byte) (daeploy.Package, bool){parsePython, parseNPM} {
		if p, ok := one(text); ok {
			list = append(list, p)
		}
	}
	return list
}
