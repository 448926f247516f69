package publish

import (
	"context"

	"github.com/daeploy/daeploy"
)

// Journal is what survives a restart. Each change is durable when the method
// returns. All methods may be called at the same time; a build that is not there
// is a daeploy.Error of kind NotFound.
type Journal interface {
	Build(id daeploy.BuildID) (daeploy.Build, error)
	// UpdatePublication changes the publication of a build that has succeeded, and
	// gives the build as it is then. change must not call the journal.
	UpdatePublication(id daeploy.BuildID, change func(*daeploy.Publication) error) (daeploy.Build, error)
	// Unpublished lists the builds whose publication is pending and whose images are
	// complete, oldest first.
	Unpublished() ([]daeploy.Build, error)
	// NewerNames lists what newer builds of the app are called in registries, or
	// still are to be.
	NewerNames(id daeploy.BuildID) ([]daeploy.ImageRef, error)
}

// Registry takes images. All methods may be called at the same time, and can be
// repeated after any error. An error of kind Unavailable may pass by itself, one
// of kind NotFound means that the image is not on this host; what people read of
// an error holds no secret.
type Registry interface {
	// Push brings an image into the repository of a name, by digest.
	Push(ctx context.Context, image, name daeploy.ImageRef, how daeploy.Compression) (daeploy.Pushed, error)
	// Attach lays a document beside what Push has brought into the repository of a
	// name, and gives the digest of its manifest. One call per image at a time.
	Attach(ctx context.Context, pushed daeploy.Pushed, name daeploy.ImageRef, doc daeploy.Document) (string, error)
	// NamePushed lets names of one repository point to what Push has brought there.
	NamePushed(ctx context.Context, pushed daeploy.Pushed, names ...daeploy.ImageRef) error
}

// Images are the images on this host.
type Images interface {
	// Inventory tells what software is in an image. NotFound means that it is not on
	// this host.
	Inventory(ctx context.Context, image daeploy.ImageRef) (daeploy.Inventory, error)
}
