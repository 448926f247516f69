package buildpipeline

import (
	"testing"
	"time"
)

// F118: within a boot only the kernel's own clock counts, and of another boot only
// the host's; neither gives a length below 0.
func TestInstant(t *testing.T) {
	now := time.Now()
	other := instant{Boot: "another", At: 0}
	for name, c := range map[string]struct {
		i           instant
		wall        time.Duration // from now
		since, left time.Duration
	}{
		"this boot, clock set on":    {in(-time.Minute), -time.Hour, time.Minute, 0},
		"this boot, clock set back":  {in(-time.Minute), time.Hour, time.Minute, 0},
		"this boot, yet to come":     {in(time.Minute), -time.Hour, 0, time.Minute},
		"another boot, past":         {other, -time.Hour, time.Hour, 0},
		"another boot, yet to come":  {other, time.Hour, 0, time.Hour},
		"of a daeploy without it":    {instant{}, -time.Hour, time.Hour, 0},
		"of one, clock set back":     {instant{}, time.Hour, 0, time.Hour},
		"this boot, after a suspend": {in(-time.Minute), -24 * time.Hour, time.Minute, 0},
	} {
		t.Run(name, func(t *testing.T) {
			since, left := c.i.since(now.Add(c.wall), now), c.i.left(now.Add(c.wall), now)
			if d := since - c.since; d < 0 || d > time.Second {
				t.Errorf("since %s, want %s", since, c.since)
			}
			if d := c.left - left; d < 0 || d > time.Second {
				t.Errorf("left %s, want %s", left, c.left)
			}
		})
	}
	t.Attr("F118", "what is kept of a moment read after a step of the clock, a suspension and a boot: only the kernel's own clock counts within a boot, and no length is below 0")
}
