package inventory

import (
	"encoding/json"
	"iter"
	"slices"
	"strings"

	"github.com/daeploy/daeploy"
)

// parseDpkg reads dpkg's status file: paragraphs of fields.
func parseDpkg(text []byte) iter.Seq[daeploy.Package] {
	return func(yield func(daeploy.Package) bool) {
		for paragraph := range strings.SplitSeq(string(text), "\n\n") {
			f := fields(paragraph, "Package", "Version", "Architecture", "Source", "Status")
			if status, ok := f["Status"]; ok && !strings.HasSuffix(status, " installed") {
				continue // removed, and its configuration left
			}
			source, _, _ := strings.Cut(f["Source"], " ") // "name (version)", if that differs
			if source == f["Package"] {
				source = ""
			}
			p := daeploy.Package{Kind: daeploy.PackageDeb, Name: f["Package"], Version: f["Version"], Arch: f["Architecture"], Source: source}
			if p.Name != "" && !yield(p) {
				return
			}
		}
	}
}

// fields reads the wanted ones of lines "Name: value" up to an empty line. Of a
// field that comes twice the first counts, continued lines are left out.
func fields(text string, want ...string) map[string]string {
	f, begun := map[string]string{}, false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if line == "" && begun {
			break
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t") {
			continue
		}
		begun = true
		if _, twice := f[name]; !twice && slices.Contains(want, name) {
			f[name] = strings.TrimSpace(value)
		}
	}
	return f
}

// parseApk reads Alpine's list: paragraphs of lines "P:name".
func parseApk(text []byte) iter.Seq[daeploy.Package] {
	return func(yield func(daeploy.Package) bool) {
		for paragraph := range strings.SplitSeq(string(text), "\n\n") {
			f := fields(paragraph, "P", "V", "A", "L", "o")
			origin := f["o"]
			if origin == f["P"] {
				origin = ""
			}
			p := daeploy.Package{Kind: daeploy.PackageApk, Name: f["P"], Version: f["V"], Arch: f["A"], License: f["L"], Source: origin}
			if p.Name != "" && !yield(p) {
				return
			}
		}
	}
}

// parsePython reads the METADATA of a wheel, or an egg's PKG-INFO.
func parsePython(text []byte) (daeploy.Package, bool) {
	f := fields(string(text), "Name", "Version", "License", "License-Expression")
	license := f["License-Expression"]
	if license == "" && len(f["License"]) <= maxWord { // some put the whole text there
		license = f["License"]
	}
	return daeploy.Package{Kind: daeploy.PackagePyPI, Name: f["Name"], Version: f["Version"], License: license}, f["Name"] != ""
}

// parseNPM reads the package.json of a module that is installed.
func parseNPM(text []byte) (daeploy.Package, bool) {
	var file struct {
		Name    string
		Version string
		License json.RawMessage // a word; long ago an object
	}
	if err := json.Unmarshal(text, &file); err != nil || file.Name == "" {
		return daeploy.Package{}, false // modules have such files for their parts too, without a name
	}
	var license string
	if err := json.Unmarshal(file.License, &license); err != nil {
		license = ""
	}
	return daeploy.Package{Kind: daeploy.PackageNPM, Name: file.Name, Version: file.Version, License: license}, true
}
