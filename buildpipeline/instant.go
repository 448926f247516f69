package buildpipeline

import (
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// instant is a moment that the journal keeps and that no step of the host's clock
// moves (F118). It holds within one boot, in which it outlives the daemon. The
// time that the host is suspended does not count: no script runs then.
type instant struct {
	Boot string        `json:"boot,omitempty"` // of the kernel; "" for a moment that is not known
	At   time.Duration `json:"at,omitempty"`   // by CLOCK_MONOTONIC, in nanoseconds
}

// thisBoot is the kernel's name of its boot, "" where it tells none.
var thisBoot = sync.OnceValue(func() string {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "" // the clock counts then
	}
	return strings.TrimSpace(string(text))
})

func monotonic() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		panic(err) // Linux has it
	}
	return time.Duration(now.Nano())
}

// in is the instant that comes after d.
func in(d time.Duration) instant { return instant{thisBoot(), monotonic() + d} }

// known tells whether i can be compared with what is now.
func (i instant) known() bool { return i.Boot != "" && i.Boot == thisBoot() }

// since is how long ago i was; if that is not known, how long ago wall was by a
// clock that shows now. It is never less than 0.
func (i instant) since(wall, now time.Time) time.Duration {
	if i.known() {
		return max(0, monotonic()-i.At)
	}
	return max(0, now.Sub(wall))
}

// left is how long it is to i; if that is not known, how long to wall by a clock
// that shows now. It is never less than 0.
func (i instant) left(wall, now time.Time) time.Duration {
	if i.known() {
		return max(0, i.At-monotonic())
	}
	return max(0, wall.Sub(now))
}
