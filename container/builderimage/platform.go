package builderimage

import (
	"runtime"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// platform is an architecture by Debian's name and by OCI's.
type platform struct {
	debian string
	oci    ocispec.Platform
}

var platforms = []platform{
	{"amd64", ocispec.Platform{OS: "linux", Architecture: "amd64"}},
	{"arm64", ocispec.Platform{OS: "linux", Architecture: "arm64"}},
	{"armhf", ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}},
	{"i386", ocispec.Platform{OS: "linux", Architecture: "386"}},
	{"ppc64el", ocispec.Platform{OS: "linux", Architecture: "ppc64le"}},
	{"riscv64", ocispec.Platform{OS: "linux", Architecture: "riscv64"}},
	{"s390x", ocispec.Platform{OS: "linux", Architecture: "s390x"}},
}

// platformOf finds an architecture by Debian's name; "" is the host's.
func platformOf(debian string) (platform, bool) {
	for _, p := range platforms {
		if p.debian == debian || debian == "" && p.oci.Architecture == runtime.GOARCH {
			return p, true
		}
	}
	return platform{}, false
}

func architectures() string {
	var names []string
	for _, p := range platforms {
		names = append(names, p.debian)
	}
	return strings.Join(names, " ")
}
