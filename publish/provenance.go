package publish

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/daeploy/daeploy"
)

const (
	provenanceType = "application/vnd.in-toto+json"
	statementType  = "https://in-toto.io/Statement/v1"
	predicateType  = "https://slsa.dev/provenance/v1"

	// buildType names the page that says what the parameters mean.
	buildType = "https://github.com/daeploy/daeploy/blob/main/docs/registry.md#build-type-v1"
)

// statement is what in-toto's and SLSA's specifications call so. The types are
// our own: those of in-toto's library are protobuf, whose JSON is another text
// each time, and so would have another digest.
type statement struct {
	Type          string       `json:"_type"`
	Subject       []descriptor `json:"subject"`
	PredicateType string       `json:"predicateType"`
	Predicate     provenance   `json:"predicate"`
}

type descriptor struct {
	Name   string            `json:"name,omitempty"`
	URI    string            `json:"uri,omitempty"`
	Digest map[string]string `json:"digest,omitempty"`
}

type provenance struct {
	BuildDefinition struct {
		BuildType            string             `json:"buildType"`
		ExternalParameters   externalParameters `json:"externalParameters"`
		InternalParameters   internalParameters `json:"internalParameters"`
		ResolvedDependencies []descriptor       `json:"resolvedDependencies"`
	} `json:"buildDefinition"`
	RunDetails struct {
		Builder struct {
			ID      string            `json:"id"`
			Version map[string]string `json:"version"`
		} `json:"builder"`
		Metadata struct {
			InvocationID string    `json:"invocationId"`
			StartedOn    time.Time `json:"startedOn"`
			FinishedOn   time.Time `json:"finishedOn"`
		} `json:"metadata"`
	} `json:"runDetails"`
}

// externalParameters are what the pusher chose.
type externalParameters struct {
	Source  string           `json:"source"`
	Ref     string           `json:"ref"`
	Builder daeploy.ImageRef `json:"builder,omitempty"` // by -o builder=
	Clean   bool             `json:"clean,omitempty"`
	Env     []string         `json:"env,omitempty"` // names only: the values are in no image either
}

type internalParameters struct {
	App         daeploy.AppName `json:"app"`
	Number      uint64          `json:"number"`
	By          string          `json:"by"`
	Incremental bool            `json:"incremental"`      // files of the app's former image were there
	Reused      uint64          `json:"reused,omitempty"` // the build that made the image, from the same files and settings
}

// provenance says how an image came to be, as SLSA 1 in an in-toto statement. It
// is not signed. What is made twice of one build is the same.
func (p *Publisher) provenance(b *daeploy.Build, name daeploy.ImageRef, pushed daeploy.Pushed) (daeploy.Document, error) {
	host := p.Rules().Host
	source := "git+" + host + "/" + string(b.ID.App)
	s := statement{
		Type: statementType, PredicateType: predicateType,
		Subject: []descriptor{{Name: name.Repository(), Digest: digestSet(pushed.Digest)}},
	}
	definition := &s.Predicate.BuildDefinition
	definition.BuildType = buildType
	definition.ExternalParameters = externalParameters{
		Source: source, Ref: printable(b.Ref), Builder: b.Options.Builder, Clean: b.Options.Clean,
		Env: slices.Sorted(maps.Keys(b.Options.Env)),
	}
	definition.InternalParameters = internalParameters{App: b.ID.App, Number: b.ID.Number, By: printable(b.By), Incremental: b.Incremental, Reused: b.Reused}
	definition.ResolvedDependencies = append([]descriptor{{
		Name: "source", URI: source + "@" + printable(b.Ref), Digest: map[string]string{"gitCommit": string(cmp.Or(b.BuiltFrom, b.Commit))},
	}}, images(b, pushed)...)
	run := &s.Predicate.RunDetails
	run.Builder.ID, run.Builder.Version = host, map[string]string{"daeploy": p.Version}
	run.Metadata.InvocationID = host + "/" + b.ID.String()
	run.Metadata.StartedOn, run.Metadata.FinishedOn = b.Started.UTC().Truncate(time.Millisecond), b.Ended.UTC().Truncate(time.Millisecond)
	text, err := json.Marshal(s)
	if err != nil {
		return daeploy.Document{}, fmt.Errorf("write the provenance of %s: %w", b.ID, err)
	}
	about := created(b)
	about["in-toto.io/predicate-type"] = predicateType
	return daeploy.Document{Type: provenanceType, Content: text, Annotations: about}, nil
}

// images are the builder, and the runtime image if the image is built on another
// one than the builder.
func images(b *daeploy.Build, pushed daeploy.Pushed) []descriptor {
	list := []descriptor{{Name: "builder", URI: string(b.Builder), Digest: digestSet(b.BuilderDigest)}}
	var manifest struct{ Annotations map[string]string }
	if err := json.Unmarshal(pushed.Manifest, &manifest); err != nil {
		return list // it has no annotations, then
	}
	base, digest := manifest.Annotations["org.opencontainers.image.base.name"], manifest.Annotations["org.opencontainers.image.base.digest"]
	if digest != "" && digest != b.BuilderDigest {
		list = append(list, descriptor{Name: "runtime", URI: base, Digest: digestSet(digest)})
	}
	return list
}

func digestSet(digest string) map[string]string {
	algorithm, hex, ok := strings.Cut(digest, ":")
	if !ok {
		return nil
	}
	return map[string]string{algorithm: hex}
}
