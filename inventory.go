package daeploy

// Inventory is the software in an image, as its package managers have recorded
// it. What stands there an image or a build has written: it is a claim.
type Inventory struct {
	OS       OSRelease
	Packages []Package // by kind, name, version
	// Missing says in a few words what could not be read; "" if all was.
	Missing string
}

// OSRelease is what /etc/os-release says; the fields are "" without it.
type OSRelease struct {
	ID      string // "debian"
	Version string // "12"
	Name    string // "Debian GNU/Linux 12 (bookworm)"
}

// PackageKind is a package manager, in the words of package URLs.
type PackageKind string

// The package managers that are read.
const (
	PackageDeb  PackageKind = "deb"
	PackageApk  PackageKind = "apk"
	PackagePyPI PackageKind = "pypi"
	PackageNPM  PackageKind = "npm"
)

// Package is one package that is installed.
type Package struct {
	Kind          PackageKind
	Name, Version string // not empty, and printable
	Arch          string // of the packages of a distribution
	Source        string // the source package, if it is called otherwise
	License       string // as it stands there, which need not be an SPDX expression; "" = unknown
	Path          string // file that says so, absolute; of several places the first
}

// Document is a text about an image that lies beside it in a registry.
type Document struct {
	Type        string            // media type
	Annotations map[string]string // of its manifest
	Content     []byte
}
