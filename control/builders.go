package control

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/daeploy/daeploy"
)

func (s *session) builders() *cobra.Command {
	return s.group("builders", "builder images on this host",
		s.buildersList(), s.buildersPull(), s.buildersImport(), s.buildersUsage(), s.buildersShow(),
		s.buildersBuild(),
		s.inPlace(admins, &cobra.Command{
			Use: "init NAME DIR", Short: "begin a builder image of your own",
			Long: "Writes a recipe, a Dockerfile, scripts, a test and an app to try into DIR, or\n" +
				"nothing if one of the files is there. NAME is as in perl, which stands for\n" +
				"daeploy.local/builders/perl:1. No daemon is needed.",
			Example: "daeploy builders init perl ./perl",
		}),
	)
}

func (s *session) buildersList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "list the images that are not an app's", Args: words(0, 0),
		Example: "daeploy builders",
	}
	return s.declare(admins, s.answers(cmd, "array of image"), func(ctx context.Context, _ daeploy.BuildID, _ []string) error {
		all, err := s.Images.Images(ctx, "")
		if err != nil {
			return err
		}
		var list []daeploy.Image
		for _, i := range all {
			if !isAppImage(i.Ref) {
				list = append(list, i)
			}
		}
		return s.showImages(list)
	})
}

// isAppImage tells whether the name is of the form daeploy.local/APP:TAG.
func isAppImage(ref daeploy.ImageRef) bool {
	rest, ok := strings.CutPrefix(string(ref), daeploy.ImageDomain+"/")
	return ok && !strings.Contains(rest, "/")
}

func (s *session) buildersShow() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show REF", Short: "one image on this host, with its configuration", Args: words(1, 1),
		Example: "daeploy builders show daeploy.local/builders/python:3.11 --json",
	}
	return s.declare(admins, s.answers(cmd, "builder"), func(ctx context.Context, _ daeploy.BuildID, args []string) error {
		ref, err := imageRef(args[0])
		if err != nil {
			return err
		}
		images, err := s.Images.Images(ctx, string(ref))
		if err != nil {
			return err
		}
		i := slices.IndexFunc(images, func(i daeploy.Image) bool { return i.Ref == ref })
		if i < 0 {
			return &daeploy.Error{
				Kind: daeploy.NotFound, Code: "image_missing", Message: fmt.Sprintf("there is no image %s on this host", ref),
				Hint: "builders lists what is here",
			}
		}
		b := newBuilderJSON(images[i])
		if s.json {
			return s.printJSON(b)
		}
		s.fields([2]string{"image", string(b.Image)}, [2]string{"digest", b.Digest}, [2]string{"size", size(b.Size)})
		fmt.Fprintln(s.out)
		var config bytes.Buffer
		if err := json.Indent(&config, b.Config, "", "  "); err != nil {
			return fmt.Errorf("show the config of %s: %w", ref, err)
		}
		for line := range strings.Lines(config.String()) {
			s.print("%s", strings.TrimSuffix(line, "\n"))
		}
		return nil
	})
}

func newBuilderJSON(i daeploy.Image) builderJSON {
	b := builderJSON{Image: i.Ref, Digest: i.Digest, Size: i.Size, Created: stamp(i.Created), Config: i.Config}
	if len(b.Config) == 0 {
		b.Config = json.RawMessage("{}")
	}
	return b
}

func (s *session) buildersPull() *cobra.Command {
	cmd := &cobra.Command{
		Use: "pull REF", Short: "fetch an image from its registry", Args: words(1, 1),
		Long:    "Asks the registry also if the image is here, and so brings it up to date.",
		Example: "daeploy builders pull registry.example.com/s2i/python:3.11",
	}
	return s.declare(admins, s.answers(cmd, "image"), func(ctx context.Context, _ daeploy.BuildID, args []string) error {
		ref, err := imageRef(args[0])
		if err != nil {
			return err
		}
		img, err := s.Images.Pull(ctx, ref, s.progress())
		if err != nil {
			return err
		}
		s.tell(daeploy.Event{Kind: daeploy.EventImagePulled, Name: string(img.Ref), Message: img.Digest})
		if s.json {
			return s.printJSON(newImageJSON(img))
		}
		return s.showImages([]daeploy.Image{img})
	})
}

// progress says how far a pull is, at most once for each tenth.
func (s *session) progress() func(daeploy.Progress) {
	said := int64(-1)
	return func(p daeploy.Progress) {
		if s.json || p.Total <= 0 || p.Done*10/p.Total <= said {
			return
		}
		said = p.Done * 10 / p.Total
		s.chat("pulling: %s of %s", size(p.Done), size(p.Total))
	}
}

func (s *session) buildersImport() *cobra.Command {
	cmd := &cobra.Command{
		Use: "import FILE|- [--as REF]", Short: "read images from an OCI or Docker archive", Args: words(1, 1),
		Long: "Reads the archive from standard input. On the host, FILE may be a file.",
		Example: "daeploy builders import python.tar\n" +
			"ssh -p 2222 daeploy@HOST builders import - < python.tar",
	}
	as := cmd.Flags().String("as", "", "`REF` to name the archive's one image by")
	s.answers(cmd, "array of image")
	return s.declare(admins, cmd, func(ctx context.Context, _ daeploy.BuildID, args []string) error {
		var ref daeploy.ImageRef
		if *as != "" {
			var err error
			if ref, err = imageRef(*as); err != nil {
				return err
			}
		}
		if err := onlyStdin(cmd, args); err != nil {
			return err
		}
		images, err := s.Images.Import(ctx, s.stdin, ref)
		if err != nil {
			return err
		}
		for _, img := range images {
			s.tell(daeploy.Event{Kind: daeploy.EventImageImported, Name: string(img.Ref), Message: img.Digest})
		}
		return s.showImages(images)
	})
}

func (s *session) showImages(images []daeploy.Image) error {
	list := make([]imageJSON, len(images))
	for i, img := range images {
		list[i] = newImageJSON(img)
	}
	if s.json {
		return s.printJSON(list)
	}
	t := s.table(-1, "IMAGE", "SIZE", "AGE", "DIGEST")
	for _, i := range list {
		t.row(string(i.Image), size(i.Size), s.since(i.Created), shortDigest(i.Digest))
	}
	t.end()
	return nil
}

func imageRef(word string) (daeploy.ImageRef, error) {
	ref, err := daeploy.ParseImageRef(word)
	if err != nil {
		return "", &daeploy.Error{
			Kind: daeploy.Invalid, Code: "image_ref_invalid", Message: err.Error(), Hint: "as in registry.example.com/team/python:3.11",
		}
	}
	return ref, nil
}
