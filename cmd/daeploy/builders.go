package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/backup"
	"github.com/daeploy/daeploy/buildpipeline"
	"github.com/daeploy/daeploy/container/builderimage"
	"github.com/daeploy/daeploy/control"
)

// buildBuilder is `builders build DIR`: it makes a builder image from a recipe
// on this host, as root, and hands it to the daemon. The daemon itself runs
// nothing of a recipe.
func buildBuilder(ctx context.Context, socket string, words []string, std streams) error {
	flags := flag.NewFlagSet("builders build", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	var set control.BuildersBuild
	set.Declare(flags)
	if err := flags.Parse(words); err != nil || flags.NArg() != 1 {
		message := "builders build wants one directory with a builder.toml"
		if err != nil {
			message = err.Error()
		}
		return &daeploy.Error{Kind: daeploy.Usage, Code: "usage", Message: message, Hint: "daeploy help builders build"}
	}
	recipe, err := readRecipe(flags.Arg(0))
	if err != nil {
		return err
	}
	options := builderimage.Options{CacheDir: set.Cache, Refresh: set.Refresh, Log: std.err}
	if set.Output != "" {
		return writeArchive(ctx, set.Output, flags.Arg(0), recipe, options, std.out)
	}
	r, w := io.Pipe()
	made := make(chan error, 1)
	go func() {
		_, err := builderimage.Make(ctx, flags.Arg(0), recipe, options, w)
		made <- err
		w.CloseWithError(err)
	}()
	var said strings.Builder // held back until it is known whose fault it is
	code, err := ask(ctx, socket, []string{"builders", "import", "-"}, r, streams{in: std.in, out: std.out, err: &said})
	r.CloseWithError(errTaken)
	if failed := <-made; failed != nil && !errors.Is(failed, errTaken) {
		return failed // the daemon's complaint about a cut-off archive says less
	}
	fmt.Fprint(std.err, said.String())
	if err != nil || code == 0 {
		return err
	}
	return daeploy.Errorf(daeploy.Failure, "import_failed", "the daemon did not take the image (exit %d)", code)
}

// initBuilder is `builders init NAME DIR`: it writes the beginning of a builder
// on the machine where it is typed, and needs no daemon.
func initBuilder(words []string, std streams) error {
	if len(words) != 2 || strings.HasPrefix(words[0], "-") {
		return &daeploy.Error{
			Kind: daeploy.Usage, Code: "usage", Message: "builders init wants a name and a directory",
			Hint: "daeploy builders init perl ./perl",
		}
	}
	name, err := builderName(words[0])
	if err != nil {
		return err
	}
	files, err := builderimage.Scaffold(words[1], name)
	if err != nil {
		return err
	}
	for _, file := range files {
		fmt.Fprintln(std.out, filepath.Join(words[1], file))
	}
	fmt.Fprintf(std.err, "hint: make the image:  daeploy builders build %s\n", words[1])
	return nil
}

// builderName completes the name of a new builder: "perl" is
// daeploy.local/builders/perl:1.
func builderName(word string) (daeploy.ImageRef, error) {
	full := word
	if !strings.Contains(word, "/") {
		full = daeploy.ImageDomain + "/builders/" + word
	}
	if !strings.Contains(full[strings.LastIndexByte(full, '/'):], ":") {
		full += ":1"
	}
	ref, err := daeploy.ParseImageRef(full)
	if err != nil || ref.Digest() != "" {
		return "", &daeploy.Error{
			Kind: daeploy.Invalid, Code: "image_ref_invalid", Err: err,
			Message: fmt.Sprintf("%q cannot be the name of a builder", word), Hint: "as in perl, perl:5 or registry.example.com/team/perl:5",
		}
	}
	return ref, nil
}

// errTaken ends the making of an archive that the daemon reads no further.
var errTaken = errors.New("the daemon took no more")

func readRecipe(dir string) (builderimage.Recipe, error) {
	var r builderimage.Recipe
	name := filepath.Join(dir, "builder.toml")
	data, err := os.ReadFile(name)
	if err != nil {
		return r, &daeploy.Error{
			Kind: daeploy.NotFound, Code: "recipe_missing", Message: fmt.Sprintf("%s is not a builder: %v", dir, err),
			Hint: "name a directory with a builder.toml and s2i/bin, as in builders/python",
		}
	}
	if err := buildpipeline.DecodeTOML(name, data, &r); err != nil {
		return r, configError(err)
	}
	return r, nil
}

// writeArchive writes the archive to a file, whole or not at all.
func writeArchive(ctx context.Context, name, dir string, r builderimage.Recipe, o builderimage.Options, out io.Writer) error {
	file, err := os.CreateTemp(filepath.Dir(name), ".builder-*")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	digest, err := builderimage.Make(ctx, dir, r, o, file)
	if err != nil {
		return err
	}
	if err := file.Chmod(0o644); err != nil {
		return err
	}
	if err := backup.PutInPlace(file, name); err != nil {
		return err
	}
	fmt.Fprintln(out, digest)
	return nil
}
