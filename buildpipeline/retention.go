package buildpipeline

import (
	"time"

	"github.com/daeploy/daeploy"
)

// Keep bounds how much of an app's past stays (faults.md, section 2). A zero
// field sets no limit. Whatever the limits: the newest build stays, the newest
// that succeeded with its image, and all that is in use.
type Keep struct {
	Builds   int           // records, each with its log, its commit's pin and its image
	Age      time.Duration // since their end
	LogBytes int64         // of their logs, in all

	// Of those builds that stay: their images.
	Images     int
	ImageAge   time.Duration
	ImageBytes int64 // what the builds have added, in all

	CacheAge time.Duration // of the package cache, since a build last had it
}

// DefaultKeep are the limits of faults.md, section 2.
func DefaultKeep() Keep {
	return Keep{Builds: 50, LogBytes: 256 << 20, Images: 5, CacheAge: 30 * 24 * time.Hour}
}

// bounds tells whether any build or image can be beyond the limits.
func (k Keep) bounds() bool {
	k.CacheAge = 0
	return k != Keep{}
}

// weights tell how much of the disk a build takes, in bytes. Each is asked only
// where a limit depends on it.
type weights struct {
	log, image func(*daeploy.Build) int64
}

// over chooses what is beyond the limits: whole builds, and of those that stay
// the images. all are an app's builds, newest first; those that stays names are
// counted and never chosen. Behind the first that is too many or too much, all
// that are older go too, so that the past has no holes but what is in use.
func (k Keep) over(all []daeploy.Build, stays func(*daeploy.Build) bool, w weights, now time.Time) (builds, images []daeploy.Build) {
	var kept, withImage int
	var logs, layers int64
	seen := map[string]bool{} // digests: several builds may have one image
	for i := range all {
		b := &all[i]
		if !b.Status.Final() {
			continue
		}
		old := now.Sub(b.Ended)
		kept++
		if k.LogBytes > 0 {
			logs += w.log(b)
		}
		if beyond(kept, k.Builds) || beyond(old, k.Age) || beyond(logs, k.LogBytes) {
			if !stays(b) {
				builds = append(builds, *b)
				continue
			}
		}
		if b.Image == "" {
			continue
		}
		if !seen[b.ImageDigest] {
			seen[b.ImageDigest] = true
			withImage++
			if k.ImageBytes > 0 {
				layers += w.image(b)
			}
		}
		if (beyond(withImage, k.Images) || beyond(old, k.ImageAge) || beyond(layers, k.ImageBytes)) && !stays(b) {
			images = append(images, *b)
		}
	}
	return builds, images
}

func beyond[T int | int64 | time.Duration](value, limit T) bool { return limit > 0 && value > limit }

// kept tells which of an app's builds no limit takes: the newest of all, the
// newest that succeeded, what is in use, and what a registry is still to get. all
// are newest first.
func (p *Pipeline) kept(all []daeploy.Build, unsettled map[daeploy.BuildID]bool) func(*daeploy.Build) bool {
	stay := map[daeploy.BuildID]bool{}
	if len(all) > 0 {
		stay[all[0].ID] = true
	}
	used := map[daeploy.ImageRef]bool{}
	for _, ref := range p.Engine.InUse() {
		used[ref] = true
	}
	succeeded := false
	for _, b := range all {
		latest := b.Status == daeploy.StatusSucceeded && !succeeded
		succeeded = succeeded || latest
		busy := !b.Status.Final() || unsettled[b.ID]
		if busy {
			used[b.Builder] = true
		}
		if busy || latest || b.Publication.Status == daeploy.PublicationPending {
			stay[b.ID] = true
		}
	}
	return func(b *daeploy.Build) bool { return stay[b.ID] || used[b.ID.Image()] }
}
