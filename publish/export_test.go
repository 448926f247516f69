package publish

import "github.com/daeploy/daeploy"

// SBOM is the bill of materials of an image.
func (p *Publisher) SBOM(b *daeploy.Build, name daeploy.ImageRef, pushed daeploy.Pushed, found daeploy.Inventory) (daeploy.Document, error) {
	return p.sbom(b, name, pushed, found)
}

// Provenance says how an image came to be.
func (p *Publisher) Provenance(b *daeploy.Build, name daeploy.ImageRef, pushed daeploy.Pushed) (daeploy.Document, error) {
	return p.provenance(b, name, pushed)
}
