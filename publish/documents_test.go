package publish_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/google/go-cmp/cmp"
	slsa "github.com/in-toto/attestation/go/predicates/provenance/v1"
	intoto "github.com/in-toto/attestation/go/v1"
	"github.com/package-url/packageurl-go"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/publish"
)

var (
	begun  = time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)
	sample = daeploy.Build{
		ID: daeploy.BuildID{App: "blog", Number: 17}, Status: daeploy.StatusSucceeded, Commit: commit, Ref: "refs/heads/main", By: "anna",
		Builder: "registry.example.org/builders/python:3.12", BuilderDigest: "sha256:" + strings.Repeat("b", 64), Incremental: true,
		Started: begun, Ended: begun.Add(time.Minute), Options: daeploy.PushOptions{Env: map[string]string{"TOKEN": "geheim"}, Clean: true},
	}
	name   = daeploy.ImageRef("registry.example.org/team/blog:17")
	pushed = daeploy.Pushed{
		Digest:   "sha256:" + strings.Repeat("a", 64),
		Manifest: []byte(`{"annotations": {"org.opencontainers.image.base.name": "r.example.org/run:1", "org.opencontainers.image.base.digest": "sha256:` + strings.Repeat("c", 64) + `"}}`),
	}
)

// The libraries of in-toto and SLSA read the statement, and find it valid.
func TestProvenance(t *testing.T) {
	p := newPublisher(t, nil, nil, publish.Target{})
	doc, err := p.Provenance(&sample, name, pushed)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(doc.Content, []byte("geheim")) {
		t.Errorf("the provenance tells values of variables: %s", doc.Content)
	}
	var s intoto.Statement
	if err := protojson.Unmarshal(doc.Content, &s); err != nil {
		t.Fatalf("%v\n%s", err, doc.Content)
	}
	if err := s.Validate(); err != nil {
		t.Errorf("the statement is not valid: %v", err)
	}
	if s.Subject[0].GetName() != "registry.example.org/team/blog" || s.Subject[0].GetDigest()["sha256"] != strings.Repeat("a", 64) {
		t.Errorf("the subject is %v", s.Subject)
	}
	if doc.Type != "application/vnd.in-toto+json" || doc.Annotations["in-toto.io/predicate-type"] != s.PredicateType {
		t.Errorf("type %s, annotations %v", doc.Type, doc.Annotations)
	}
	text, err := protojson.Marshal(s.GetPredicate())
	if err != nil {
		t.Fatal(err)
	}
	var predicate slsa.Provenance
	if err := protojson.Unmarshal(text, &predicate); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if err := predicate.Validate(); err != nil {
		t.Errorf("the predicate is not valid: %v", err)
	}
	var materials []string
	for _, d := range predicate.GetBuildDefinition().GetResolvedDependencies() {
		for algorithm, digest := range d.GetDigest() {
			materials = append(materials, d.GetName()+" "+d.GetUri()+" "+algorithm+":"+digest[:7])
		}
	}
	want := []string{
		"source git+ssh://daeploy@deploy.example.org/blog@refs/heads/main gitCommit:4f2c1ab",
		"builder registry.example.org/builders/python:3.12 sha256:bbbbbbb",
		"runtime r.example.org/run:1 sha256:ccccccc",
	}
	if diff := cmp.Diff(want, materials); diff != "" {
		t.Errorf("materials (-want +got):\n%s", diff)
	}
	run := predicate.GetRunDetails()
	if run.GetBuilder().GetId() != "ssh://daeploy@deploy.example.org" || run.GetMetadata().GetInvocationId() != "ssh://daeploy@deploy.example.org/blog/17" ||
		run.GetMetadata().GetFinishedOn().AsTime().Sub(run.GetMetadata().GetStartedOn().AsTime()) != time.Minute {
		t.Errorf("the run is %v", run)
	}
}

// The library of CycloneDX reads the bill of materials; each package has a
// package URL that can be read, and a reference of its own.
func TestSBOM(t *testing.T) {
	p := newPublisher(t, nil, nil, publish.Target{})
	doc, err := p.SBOM(&sample, name, pushed, daeploy.Inventory{
		OS: daeploy.OSRelease{ID: "debian", Version: "12", Name: "Debian GNU/Linux 12 (bookworm)"}, Missing: "there are more than 20000 packages",
		Packages: []daeploy.Package{
			{Kind: daeploy.PackageDeb, Name: "libc6", Version: "2.36-9+deb12u10", Arch: "amd64", Source: "glibc", Path: "/var/lib/dpkg/status"},
			{Kind: daeploy.PackageNPM, Name: "@babel/core", Version: "7.0.0", License: "MIT", Path: "/app/node_modules/@babel/core/package.json"},
			{Kind: daeploy.PackagePyPI, Name: "Flask_Login", Version: "0.6.3", License: "one", Path: "/a/\xff"},
			{Kind: daeploy.PackagePyPI, Name: "flask-login", Version: "0.6.3", License: "two", Path: "/b"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	var bom cdx.BOM
	if err := cdx.NewBOMDecoder(bytes.NewReader(doc.Content), cdx.BOMFileFormatJSON).Decode(&bom); err != nil {
		t.Fatalf("%v\n%s", err, doc.Content)
	}
	if bom.SpecVersion != cdx.SpecVersion1_6 || !strings.HasPrefix(bom.SerialNumber, "urn:uuid:") || len(bom.SerialNumber) != 45 {
		t.Errorf("spec version %v, serial number %s", bom.SpecVersion, bom.SerialNumber)
	}
	if c := bom.Metadata.Component; c.Type != cdx.ComponentTypeContainer || c.Name != "registry.example.org/team/blog" || c.Version != pushed.Digest {
		t.Errorf("it is about %+v", c)
	}
	if got := (*bom.Compositions)[0].Aggregate; got != cdx.CompositionAggregateIncomplete {
		t.Errorf("it claims to be %s", got)
	}
	var urls []string
	refs := map[string]bool{bom.Metadata.Component.BOMRef: true}
	for _, c := range *bom.Components {
		if refs[c.BOMRef] || c.BOMRef == "" {
			t.Errorf("reference %q comes twice", c.BOMRef)
		}
		refs[c.BOMRef] = true
		urls = append(urls, c.PackageURL)
		if _, err := packageurl.FromString(c.PackageURL); err != nil && c.Type != cdx.ComponentTypeOS {
			t.Errorf("%s: %v", c.PackageURL, err)
		}
	}
	want := []string{
		"", "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64&distro=debian-12&upstream=glibc",
		"pkg:npm/%40babel/core@7.0.0", "pkg:pypi/flask-login@0.6.3", "pkg:pypi/flask-login@0.6.3",
	}
	if diff := cmp.Diff(want, urls); diff != "" {
		t.Errorf("package URLs (-want +got):\n%s", diff)
	}
}
