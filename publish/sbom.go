package publish

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/package-url/packageurl-go"

	"github.com/daeploy/daeploy"
)

const sbomType = "application/vnd.cyclonedx+json"

// sbom is the bill of materials of an image, as CycloneDX 1.6. It is the same
// each time it is made of the same: what is there already is not sent again.
func (p *Publisher) sbom(b *daeploy.Build, name daeploy.ImageRef, pushed daeploy.Pushed, found daeploy.Inventory) (daeploy.Document, error) {
	bom := cdx.NewBOM()
	bom.SerialNumber = "urn:uuid:" + uuid(pushed.Digest)
	image := component(cdx.ComponentTypeContainer, name.Repository(), pushed.Digest, imageURL(name, pushed))
	bom.Metadata = &cdx.Metadata{
		Timestamp: b.Ended.UTC().Format(time.RFC3339), Component: &image,
		Tools: &cdx.ToolsChoice{Components: &[]cdx.Component{{Type: cdx.ComponentTypeApplication, Name: "daeploy", Version: p.Version}}},
	}
	var parts []cdx.Component
	refs := map[string]int{}
	if os := found.OS; os.ID != "" {
		system := component(cdx.ComponentTypeOS, os.ID, os.Version, "")
		system.BOMRef, system.Description = "os", os.Name
		parts = append(parts, system)
	}
	for _, pkg := range found.Packages {
		part := component(cdx.ComponentTypeLibrary, pkg.Name, pkg.Version, packageURL(pkg, found.OS))
		if refs[part.BOMRef]++; refs[part.BOMRef] > 1 {
			part.BOMRef += fmt.Sprintf("#%d", refs[part.BOMRef])
		}
		if pkg.License != "" {
			part.Licenses = &cdx.Licenses{{License: &cdx.License{Name: pkg.License}}}
		}
		part.Properties = &[]cdx.Property{{Name: "daeploy:path", Value: printable(pkg.Path)}}
		parts = append(parts, part)
	}
	bom.Components = &parts
	bom.Compositions = &[]cdx.Composition{{Aggregate: completeness(found), Assemblies: &[]cdx.BOMReference{cdx.BOMReference(image.BOMRef)}}}
	if found.Missing != "" {
		bom.Metadata.Properties = &[]cdx.Property{{Name: "daeploy:missing", Value: found.Missing}}
	}
	var text bytes.Buffer
	if err := cdx.NewBOMEncoder(&text, cdx.BOMFileFormatJSON).EncodeVersion(bom, cdx.SpecVersion1_6); err != nil {
		return daeploy.Document{}, fmt.Errorf("write the bill of materials of %s: %w", b.ID, err)
	}
	return daeploy.Document{Type: sbomType, Content: text.Bytes(), Annotations: created(b)}, nil
}

func component(kind cdx.ComponentType, name, version, purl string) cdx.Component {
	return cdx.Component{Type: kind, BOMRef: purl, Name: name, Version: version, PackageURL: purl}
}

// completeness claims no more than that package managers were asked: what was
// copied into the image or compiled there has left no record.
func completeness(found daeploy.Inventory) cdx.CompositionAggregate {
	if found.Missing != "" {
		return cdx.CompositionAggregateIncomplete
	}
	return cdx.CompositionAggregateUnknown
}

// packageURL names a package as the purl specification says.
func packageURL(p daeploy.Package, os daeploy.OSRelease) string {
	namespace, name, qualifiers := "", p.Name, map[string]string{}
	switch p.Kind {
	case daeploy.PackageDeb, daeploy.PackageApk:
		namespace = os.ID
		if namespace == "" {
			namespace = map[daeploy.PackageKind]string{daeploy.PackageDeb: "debian", daeploy.PackageApk: "alpine"}[p.Kind]
		}
		if os.ID != "" && os.Version != "" {
			qualifiers["distro"] = os.ID + "-" + os.Version
		}
		if p.Arch != "" {
			qualifiers["arch"] = p.Arch
		}
		if p.Source != "" && p.Kind == daeploy.PackageDeb {
			qualifiers["upstream"] = p.Source
		}
	case daeploy.PackagePyPI:
		name = strings.ReplaceAll(strings.ToLower(name), "_", "-")
	case daeploy.PackageNPM:
		if scope, rest, ok := strings.Cut(name, "/"); ok && strings.HasPrefix(scope, "@") {
			namespace, name = scope, rest
		}
	}
	return packageurl.NewPackageURL(string(p.Kind), namespace, name, p.Version, packageurl.QualifiersFromMap(qualifiers), "").ToString()
}

func imageURL(name daeploy.ImageRef, pushed daeploy.Pushed) string {
	repository := name.Repository()
	last := repository[strings.LastIndexByte(repository, '/')+1:]
	return packageurl.NewPackageURL(packageurl.TypeOCI, "", last, pushed.Digest,
		packageurl.QualifiersFromMap(map[string]string{"repository_url": repository}), "").ToString()
}

// uuid makes one of a text, always the same (RFC 9562, version 8).
func uuid(text string) string {
	h := sha256.Sum256([]byte(text))
	h[6], h[8] = h[6]&0x0f|0x80, h[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", h[0:4], h[4:6], h[6:8], h[8:10], h[10:16])
}

// created is when a document was, for whoever lists documents: the build's end.
func created(b *daeploy.Build) map[string]string {
	return map[string]string{"org.opencontainers.image.created": b.Ended.UTC().Format(time.RFC3339)}
}

// printable keeps file names of an image, which can be any bytes, fit for JSON.
func printable(s string) string { return strings.ToValidUTF8(s, "\ufffd") }
