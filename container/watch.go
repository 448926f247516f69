package container

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container/cache"
	"github.com/daeploy/daeploy/container/rootfs"
)

const (
	watchPause = 250 * time.Millisecond
	// recount is how often the upper directory is counted though the disk shows
	// no need: others may have freed what this build took.
	recount = 2 * time.Second
	// share is how much of the time may go into counting.
	share = 10
)

// overrun says which limit was passed; none if it is zero.
type overrun struct {
	limit, detail string // of daeploy.Exit
	kill          bool   // memory: whoever is left is killed, and the counters tell the rest
}

// watch looks after disk and memory until ctx ends, and says so once if a limit
// is passed: within two seconds, unless counting alone takes longer.
func (b *box) watch(ctx context.Context, h host, d diskWatch, over chan<- overrun) {
	tick := time.NewTicker(watchPause)
	defer tick.Stop()
	cgroup := cgroupPath(b.name, b.engine.cfg.Owner)
	for killed := false; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		// Version 1 kills one process only; a build that lost one is lost (v2 has
		// memory.oom.group for that).
		if !killed && d.limits.Memory > 0 && h.oomKills(cgroup) > 0 {
			killed = true
			select {
			case over <- overrun{kill: true}:
			default:
			}
		}
		if o := d.look(ctx); o != (overrun{}) {
			select {
			case over <- o:
			case <-ctx.Done():
			}
			return
		}
	}
}

// diskWatch guesses from the free space when a count is due.
type diskWatch struct {
	*box
	tree   *rootfs.Tree
	dir    string
	limits daeploy.Limits
	cache  *cache.Mounted // nil if the build has no package cache

	counted time.Time
	took    time.Duration
	last    rootfs.Usage
	free    int64 // bytes at the last count
	files   int64 // free inodes at the last count
}

// look returns what is wrong.
func (d *diskWatch) look(ctx context.Context) overrun {
	var fs unix.Statfs_t
	if d.tree == nil || unix.Statfs(d.dir, &fs) != nil {
		return overrun{}
	}
	free, files := int64(fs.Bavail)*fs.Bsize, int64(fs.Ffree)
	if reserve := d.engine.reserve(fs); free < reserve {
		return onDisk("%s are left on this host, which keeps %s", size(free), size(reserve))
	}
	if detail := d.lookAtCache(); detail != "" {
		return onDisk("%s", detail)
	}
	// If nobody but this build wrote, it holds no more than this.
	bytes, inodes := d.last.Bytes+d.free-free, d.last.Inodes+d.files-files
	suspect := d.counted.IsZero() || d.limits.Disk > 0 && bytes > d.limits.Disk*9/10 ||
		d.limits.Inodes > 0 && inodes > d.limits.Inodes*9/10
	pause := max(recount, share*d.took)
	if suspect {
		pause = d.took
	}
	start := time.Now()
	if start.Sub(d.counted) < pause {
		return overrun{}
	}
	over, err := d.exceeded(ctx, false)
	if err != nil {
		return overrun{} // it changes too fast to be counted; the next look may fare better
	}
	d.counted, d.took, d.free, d.files = time.Now(), time.Since(start), free, files
	return over
}

func onDisk(format string, args ...any) overrun {
	return overrun{limit: "disk", detail: fmt.Sprintf(format, args...)}
}

// exceeded counts, and says which limit was reached. What the shim has
// written and nobody has read counts too. At the end a sparse file counts with
// its whole length: so long will it be in the layer.
func (d *diskWatch) exceeded(ctx context.Context, atEnd bool) (overrun, error) {
	if d.tree == nil || d.limits.Disk == 0 && d.limits.Inodes == 0 {
		return overrun{}, nil
	}
	use, err := d.tree.Usage(ctx)
	if err != nil {
		return overrun{}, err
	}
	if atEnd {
		use.Bytes = max(use.Bytes, use.Apparent)
	}
	if d.cache != nil {
		grown, err := d.cache.Grown(ctx)
		if err != nil {
			return overrun{}, err
		}
		use.Bytes, use.Inodes = use.Bytes+grown.Bytes, use.Inodes+grown.Inodes
	}
	if info, err := os.Stat(d.output()); err == nil {
		use.Bytes += info.Sys().(*syscall.Stat_t).Blocks * 512
	}
	d.last = use
	switch {
	case use.Deep:
		// What lies below is not counted, and no image could hold it.
		return overrun{limit: "depth", detail: fmt.Sprintf("directories nested more than %d deep", rootfs.MaxDepth)}, nil
	case d.limits.Disk > 0 && use.Bytes >= d.limits.Disk:
		return onDisk("%s of %s", size(use.Bytes), size(d.limits.Disk)), nil
	case d.limits.Inodes > 0 && use.Inodes >= d.limits.Inodes:
		return onDisk("%d of %d files", use.Inodes, d.limits.Inodes), nil
	}
	return overrun{}, nil
}

// reserve is what builds leave free on a file system.
func (e *Engine) reserve(fs unix.Statfs_t) int64 {
	if own := e.rules.Load().Reserve; own > 0 {
		return own
	}
	return max(int64(fs.Blocks)*fs.Bsize/20, 1<<30)
}

// size writes bytes for people.
func size(n int64) string {
	for _, unit := range []struct {
		name string
		size int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= unit.size {
			if n%unit.size == 0 {
				return fmt.Sprintf("%d %s", n/unit.size, unit.name)
			}
			return fmt.Sprintf("%.1f %s", float64(n)/float64(unit.size), unit.name)
		}
	}
	return fmt.Sprintf("%d bytes", n)
}
