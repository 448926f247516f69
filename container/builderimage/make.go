package builderimage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/daeploy/daeploy"
)

// Options are what differs between hosts and must not show in the image.
type Options struct {
	// Arch is Debian's name of the architecture; "" is this host's.
	Arch string
	// Sources are one-line entries of sources.list ("deb URL SUITE COMPONENT...")
	// to install from, instead of Debian's own; a key this host's apt does not
	// trust is named there as [signed-by=FILE]. They are not recorded: the image's
	// apt always uses what Debian ships.
	Sources []string
	// CacheDir keeps base systems between calls; it is made if missing. Two calls
	// at once cannot share it. "" keeps nothing.
	CacheDir string
	// Refresh makes the base system anew, with the archive's newest packages,
	// and puts it in the place of the cached one.
	Refresh bool
	// Log gets mmdebstrap's words and ours; nil drops them.
	Log io.Writer
	// Bootstrap makes base systems; nil is Mmdebstrap.
	Bootstrap Bootstrapper
}

// Make writes the builder image of recipe r, whose scripts are in dir/s2i/bin
// and whose further files are in dir/files, to out: a tar archive of an OCI image layout with one image of r's name. The
// digest is that of the image's manifest. Temporary files, the size of the base
// system twice, are below os.TempDir. When Make returns an error, out holds an
// unusable part of an archive, or nothing.
//
// Errors are daeploy.Errors: Invalid (recipe_invalid) for recipe and scripts,
// Config (mmdebstrap_missing), TryAgain (builder_cache_busy), Failure
// (bootstrap_failed, rootfs_invalid). Without a kind are those of the disk, and
// ctx's cause.
func Make(ctx context.Context, dir string, r Recipe, o Options, out io.Writer) (string, error) {
	if err := r.Validate(); err != nil {
		return "", err
	}
	r.Epoch = r.Epoch.UTC() // its zone would show in the config
	if o.Log == nil {
		o.Log = io.Discard
	}
	if o.Bootstrap == nil {
		o.Bootstrap = Mmdebstrap
	}
	plat, base, err := r.base(o)
	if err != nil {
		return "", err
	}
	scripts, err := readScripts(dir, r.Runtime)
	if err != nil {
		return "", err
	}
	files, err := openFiles(dir)
	if err != nil {
		return "", err
	}
	defer files.Close()
	layer, err := scratchFile()
	if err != nil {
		return "", fmt.Errorf("make a temporary file: %w", err)
	}
	defer layer.Close()

	id := digest.Canonical.Digester()
	var size int64
	err = withBase(ctx, base, o, func(tree io.Reader) error {
		if err := rewind(layer); err != nil {
			return err
		}
		id.Hash().Reset()
		n := &counter{w: io.MultiWriter(layer, id.Hash())}
		if err := writeLayer(ctx, tree, r, files, scripts, n); err != nil {
			return err
		}
		size = n.n
		return nil
	})
	if err != nil {
		return "", err
	}
	if _, err := layer.Seek(0, io.SeekStart); err != nil {
		return "", fmt.Errorf("read the layer: %w", err)
	}
	manifest, err := writeArchive(out, r.Name, r.Epoch, plat, r.config(plat, id.Digest(), scripts), blob{id.Digest(), size, layer})
	if err != nil {
		return "", fmt.Errorf("write the image archive: %w", err)
	}
	fmt.Fprintf(o.Log, "%s %s, %d MiB\n", r.Name, manifest, size>>20)
	return manifest.String(), nil
}

// base tells the part of the recipe that decides over the base system.
func (r Recipe) base(o Options) (platform, Base, error) {
	plat, ok := platformOf(o.Arch)
	if !ok {
		return plat, Base{}, &daeploy.Error{
			Kind: daeploy.Invalid, Code: "arch_unknown",
			Message: fmt.Sprintf("Debian architecture %q (host: %s) is not known here", o.Arch, runtime.GOARCH),
			Hint:    "name one of " + architectures(),
		}
	}
	b := Base{
		Suite: r.Suite, Components: r.Components, Packages: r.Packages, Hooks: r.BaseHooks,
		Extra: r.ExtraSuites, Unpacked: len(r.Only) > 0,
		Sources: o.Sources, Arch: plat.debian, Epoch: r.Epoch.Unix(),
	}
	if len(b.Components) == 0 {
		b.Components = []string{"main"}
	}
	// The order of packages means nothing to apt and must not part two caches.
	b.Packages = slices.Compact(slices.Sorted(slices.Values(b.Packages)))
	for _, s := range b.Sources {
		if !oneLine(s) || len(s) < 4 || s[:4] != "deb " {
			return plat, b, daeploy.Errorf(daeploy.Usage, "apt_source_invalid", "%q is not a line \"deb URL SUITE COMPONENT...\"", s)
		}
	}
	return plat, b, nil
}

// scratchFile is a file without a name: a crash leaves nothing behind.
func scratchFile() (*os.File, error) {
	f, err := os.CreateTemp("", "daeploy-builder-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func rewind(f *os.File) error {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return f.Truncate(0)
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
