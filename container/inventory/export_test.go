package inventory

import (
	"slices"

	"github.com/daeploy/daeploy"
)

// ReadFor is Read with another limit of time.
var ReadFor = read

// Parse reads a text as each of the formats.
func Parse(text []byte) []daeploy.Package {
	list := slices.AppendSeq(slices.Collect(parseDpkg(text)), parseApk(text))
	for _, one := range []func([]byte) (daeploy.Package, bool){parsePython, parseNPM} {
		if p, ok := one(text); ok {
			list = append(list, p)
		}
	}
	return list
}
