package buildpipeline

import (
	"fmt"
	"path"

	"github.com/daeploy/daeploy"
)

// onto writes a Dockerfile of two stages: assemble runs in the builder's, and
// what it leaves is copied onto the runtime image (section 8 of the contract).
func (d *dockerfile) onto(runtime *DockerBuilder) (text string, notices []string, err error) {
	if runtime == nil {
		return "", nil, &daeploy.Error{Kind: daeploy.Internal, Code: codeInternal, Message: "nothing is known of the runtime image", Hint: "tell the operator of this host"}
	}
	if err := d.read("assemble"); err != nil {
		return "", nil, err
	}
	r := dockerfile{builder: *runtime, source: d.source}
	r.builder.Written = d.builder.Written // the label names the builder (S110)
	if err := r.read("run"); err != nil {
		return "", nil, asRuntime(err)
	}
	r.layout.Dest = r.layout.Workdir // S108
	items := d.source.File.Runtime.Artifacts
	if len(items) == 0 {
		items = splitArtifacts(r.facts.label(labelArtifacts))
	}
	if len(items) == 0 && runtime.Config == nil {
		return "", nil, buildFailed("runtime_artifacts_invalid", "run this where the daemon has the image, or list artifacts in .daeploy",
			"what %s wants of the builder is not known here", r.builder.Ref)
	}
	artifacts, err := ParseArtifacts(items, r.layout.Workdir)
	if err != nil {
		return "", nil, err
	}
	d.head()
	fmt.Fprintf(&d.out, "FROM %s AS builder\n", d.builder.Ref)
	d.environment()
	d.assemble()
	fmt.Fprintf(&d.out, "\nFROM %s\n", r.builder.Ref)
	r.labels()
	r.environment()
	r.carry(artifacts)
	r.start()
	return d.out.String() + r.out.String(), append(d.notices, r.notices...), nil
}

// carry copies the artifacts and the hooks, and runs assemble-runtime (S105 to
// S109). COPY of one path to another does for files and for directories.
func (d *dockerfile) carry(artifacts []daeploy.Artifact) {
	user := d.user("", labelRuntimeUser)
	for _, a := range artifacts {
		d.copy(user, a.From, a.To, "--from=builder")
	}
	for _, name := range carriedHooks {
		if d.hooks[name] != "" {
			d.copy(user, "upload/scripts/"+name, path.Join(d.layout.Dest, "scripts", name))
		}
	}
	if d.hooks["assemble-runtime"] != "" {
		d.run("assemble-runtime", user)
		return
	}
	d.leave("if %s has %s, add before CMD: RUN %s", d.builder.Ref, d.place("assemble-runtime"), dockerArray(d.place("assemble-runtime")))
}
