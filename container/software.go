package container

import (
	"context"
	"errors"
	"fmt"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container/inventory"
)

// Inventory tells what software is in an image of this host. It reads the image's
// snapshot through a view of its own, and runs nothing. NotFound means that the
// image is not there, or not in full.
func (e *Engine) Inventory(ctx context.Context, image daeploy.ImageRef) (daeploy.Inventory, error) {
	var none daeploy.Inventory
	b, done, err := e.foregroundBox("inventory")
	if err != nil {
		return none, err
	}
	defer done()
	record, err := b.client.ImageService().Get(ctx, string(image))
	if err != nil {
		return none, gone(err)
	}
	p, err := readImage(ctx, b.client, record)
	if err != nil {
		return none, gone(err)
	}
	if len(p.config.RootFS.DiffIDs) == 0 {
		return none, nil
	}
	if err := b.open(ctx); err != nil {
		return none, err
	}
	found, err := b.inventory(ctx, p.config.chain())
	clean, cancel := cleanup(ctx)
	defer cancel()
	return found, errors.Join(err, b.remove(clean))
}

func (b *box) inventory(ctx context.Context, chain string) (daeploy.Inventory, error) {
	tree, err := b.view(b.held(ctx), chain)
	if err != nil {
		return daeploy.Inventory{}, gone(err)
	}
	found, err := inventory.Read(ctx, tree)
	if err != nil {
		err = fmt.Errorf("look through %s: %w", chain, err)
	}
	return found, errors.Join(err, tree.Close())
}
