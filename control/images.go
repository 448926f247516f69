package control

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/daeploy/daeploy"
)

func (s *session) images() *cobra.Command {
	cmd := &cobra.Command{
		Use: "images APP", Short: "images of an app that are kept", Args: words(1, 1),
		Example: "daeploy images blog",
	}
	return s.declare(readsApp, s.answers(cmd, "array of image"), func(ctx context.Context, id daeploy.BuildID, _ []string) error {
		if _, err := s.Apps.App(id.App); err != nil {
			return err
		}
		all, err := s.Images.Images(ctx, daeploy.ImageDomain+"/"+string(id.App)+":")
		if err != nil {
			return err
		}
		list := appImages(id.App, all)
		if s.json {
			return s.printJSON(list)
		}
		t := s.table(-1, "IMAGE", "SIZE", "AGE", "LATEST", "DIGEST")
		for _, i := range list {
			latest := ""
			if i.Latest {
				latest = "latest"
			}
			t.row(string(i.Image), size(i.Size), s.since(i.Created), latest, shortDigest(i.Digest))
		}
		t.end()
		return nil
	})
}

// appImages lists the images of builds, newest first. The name :latest is a
// mark on one of them; only if that one's own name is gone does it stand in
// the list itself, as the first.
func appImages(app daeploy.AppName, all []daeploy.Image) []imageJSON {
	var latest *daeploy.Image
	number := map[daeploy.ImageRef]uint64{}
	list := []imageJSON{}
	for i, img := range all {
		if img.Ref == app.Latest() {
			latest = &all[i]
			continue
		}
		_, tag, _ := strings.Cut(string(img.Ref), ":")
		id, err := daeploy.ParseBuildID(string(app) + "/" + tag)
		if err != nil || id.Image() != img.Ref {
			continue // not a build's
		}
		j := newImageJSON(img)
		j.Build = id.String()
		number[img.Ref] = id.Number
		list = append(list, j)
	}
	slices.SortFunc(list, func(a, b imageJSON) int { return cmp.Compare(number[b.Image], number[a.Image]) })
	if latest == nil {
		return list
	}
	if i := slices.IndexFunc(list, func(j imageJSON) bool { return j.Digest == latest.Digest }); i >= 0 {
		list[i].Latest = true
		return list
	}
	j := newImageJSON(*latest)
	j.Latest = true
	return slices.Insert(list, 0, j)
}

func newImageJSON(i daeploy.Image) imageJSON {
	return imageJSON{Image: i.Ref, Digest: i.Digest, Size: i.Size, Created: stamp(i.Created)}
}

// shortDigest is the beginning of a digest, as other container tools show it.
func shortDigest(digest string) string {
	_, hex, _ := strings.Cut(digest, ":")
	return hex[:min(12, len(hex))]
}
