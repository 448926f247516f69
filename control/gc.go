package control

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/daeploy/daeploy"
)

func (s *session) gc() *cobra.Command {
	cmd := &cobra.Command{
		Use: "gc", Short: "remove what is beyond the limits of retention", Args: words(0, 0),
		Long: "Removes builds, images and package caches that are beyond the limits of [keep],\n" +
			"repacks repositories, and removes what no build claims. Builds go on meanwhile:\n" +
			"what they use stays, and so do builder images, the newest build of each app, and\n" +
			"its latest image. The daemon does the same by itself after builds, and hourly.\n" +
			"Sources laid out for next builds go too, and come again with the builds.",
		Example: "daeploy gc --dry-run\ndaeploy gc --json",
	}
	dry := cmd.Flags().Bool("dry-run", false, "only say what would be removed")
	return s.declare(admins, s.answers(cmd, "gc"), func(ctx context.Context, _ daeploy.BuildID, _ []string) error {
		c, err := s.Host.Collect(ctx, *dry)
		if err != nil {
			return err
		}
		j := newGCJSON(&c, *dry)
		if !*dry {
			s.tell(daeploy.Event{Kind: daeploy.EventGarbageCollected, Message: size(j.Bytes) + " freed"})
		}
		if s.json {
			return s.printJSON(j)
		}
		s.showGC(&j)
		return nil
	})
}

func (s *session) showGC(j *gcJSON) {
	if len(j.Apps) > 0 {
		t := s.table(-1, "APP", "BUILDS", "IMAGES", "SIZE", "LOGS", "CACHE", "GIT", "LEFT")
		for _, a := range j.Apps {
			t.row(string(a.App), fmt.Sprint(len(a.Builds)), fmt.Sprint(len(a.Images)), size(a.ImageBytes), size(a.LogBytes),
				size(a.CacheBytes), size(a.GitBytes), a.Left)
		}
		t.end()
	}
	for _, u := range j.Unclaimed {
		s.print("%s is of no build", u)
	}
	for _, app := range j.Caches {
		s.print("%s is gone, and had left a package cache", app)
	}
	for _, id := range j.Leftovers {
		s.print("%s is over, and had something left in containerd", id)
	}
	verb := "freed"
	if j.DryRun {
		verb = "would free about"
	}
	s.print("%s %s", verb, size(j.Bytes))
	s.print("the database has %s, of which %s are free for new records", size(j.DatabaseBytes), size(j.DatabaseFree))
}

func newGCJSON(c *daeploy.Collected, dry bool) gcJSON {
	j := gcJSON{
		DryRun: dry, Apps: []freedJSON{}, Unclaimed: append([]daeploy.ImageRef{}, c.Unclaimed...),
		Caches:    append([]daeploy.AppName{}, c.Caches...),
		Leftovers: append([]daeploy.BuildID{}, c.Leftovers...), DatabaseBytes: c.DatabaseBytes, DatabaseFree: c.DatabaseFree,
	}
	for _, f := range c.Apps {
		j.Apps = append(j.Apps, freedJSON{
			App: f.App, Builds: append([]daeploy.BuildID{}, f.Builds...), Images: append([]daeploy.ImageRef{}, f.Images...),
			ImageBytes: f.ImageBytes, LogBytes: f.LogBytes, CacheBytes: f.CacheBytes, GitBytes: f.GitBytes, Left: f.Left,
		})
		j.Bytes += f.ImageBytes + f.LogBytes + f.CacheBytes + f.GitBytes
	}
	return j
}
