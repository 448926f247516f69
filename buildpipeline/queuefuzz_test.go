package buildpipeline_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/buildpipeline"
)

// line is a slow model of who waits and who runs.
type line struct {
	t       *testing.T
	slots   int
	held    bool
	waiting []*turn // in order of arrival
	running map[daeploy.AppName]*turn
	passed  map[daeploy.AppName]map[daeploy.AppName]int // turns that others had while an app stood in line
}

type turn struct {
	id      daeploy.BuildID
	granted func() bool
	end     func()
}

// settle takes over what the queue has granted, and holds it against the rules.
func (m *line) settle(what string) {
	for i := 0; i < len(m.waiting); {
		b := m.waiting[i]
		if !b.granted() {
			i++
			continue
		}
		m.waiting = append(m.waiting[:i:i], m.waiting[i+1:]...)
		switch {
		case m.held:
			m.t.Errorf("%s: %s began in a held queue", what, b.id)
		case m.running[b.id.App] != nil:
			m.t.Errorf("%s: %s began beside %s", what, b.id, m.running[b.id.App].id)
		}
		for _, before := range m.waiting[:i] {
			if before.id.App == b.id.App {
				m.t.Errorf("%s: %s began before %s", what, b.id, before.id)
			}
		}
		m.running[b.id.App] = b
		delete(m.passed, b.id.App)
		for _, counts := range m.passed {
			counts[b.id.App]++
		}
	}
	if len(m.running) > m.slots {
		m.t.Errorf("%s: %d run on %d slots", what, len(m.running), m.slots)
	}
	for _, b := range m.waiting {
		if m.running[b.id.App] != nil {
			delete(m.passed, b.id.App)
			continue
		}
		if !m.held && len(m.running) < m.slots {
			m.t.Errorf("%s: %s waits, and a slot is free", what, b.id)
		}
		if m.passed[b.id.App] == nil {
			m.passed[b.id.App] = map[daeploy.AppName]int{}
		}
		for other, n := range m.passed[b.id.App] {
			if n > 1 {
				m.t.Errorf("%s: %s had %d turns while %s waited", what, other, n, b.id)
			}
		}
	}
}

// P7, F27: whatever comes, ends, leaves or is held in whatever order, each app runs
// one build at a time in order of arrival, no slot is idle while somebody may run, no
// app has two turns while another one waits, and all have their turn in the end.
func FuzzQueue(f *testing.F) {
	f.Add(uint8(2), []byte{0, 0, 1, 2, 0x10, 0x11, 0x20, 0, 0x30, 1, 0x30})
	f.Add(uint8(1), []byte{0, 0, 0, 1, 2, 0x10, 0x10, 0x10, 0x21, 0x10})
	f.Add(uint8(3), []byte{0x30, 0, 1, 2, 3, 0x22, 0x30, 0x10})
	f.Fuzz(func(t *testing.T, slots uint8, acts []byte) {
		m := &line{t: t, slots: 1 + int(slots%4), running: map[daeploy.AppName]*turn{}, passed: map[daeploy.AppName]map[daeploy.AppName]int{}}
		q := buildpipeline.NewQueue(m.slots)
		numbers := map[daeploy.AppName]uint64{}
		finish := func(app daeploy.AppName) {
			if b := m.running[app]; b != nil {
				delete(m.running, app)
				b.end()
			}
		}
		for i, act := range acts[:min(len(acts), 200)] {
			app := daeploy.AppName(fmt.Sprintf("app%d", act&3))
			what := fmt.Sprintf("act %d (%#x)", i, act)
			switch act >> 4 {
			case 0: // a push
				numbers[app]++
				b := &turn{id: daeploy.BuildID{App: app, Number: numbers[app]}}
				m.waiting = append(m.waiting, b)
				b.granted, b.end = q.Add(b.id)
			case 1: // a build ends
				finish(app)
			case 2: // the last one of an app that waits is canceled
				for k, b := range slices.Backward(m.waiting) {
					if b.id.App == app {
						m.waiting = append(m.waiting[:k:k], m.waiting[k+1:]...)
						delete(m.passed, app)
						b.end()
						break
					}
				}
			case 3:
				m.held = !m.held
				clear(m.passed) // who waits in a held queue is passed by nobody
				q.Hold(m.held)
			}
			m.settle(what)
			for _, b := range m.waiting {
				if n, _ := q.Place(b.id); n < 1 || n > len(m.waiting) {
					t.Errorf("%s: %s waits at place %d of %d", what, b.id, n, len(m.waiting))
				}
			}
		}
		m.held = false
		q.Hold(false)
		m.settle("the end")
		for range len(m.waiting) + len(m.running) {
			for app := range m.running {
				finish(app)
				break
			}
			m.settle("the end")
		}
		if len(m.waiting)+len(m.running) > 0 {
			t.Errorf("%d never had their turn", len(m.waiting))
		}
	})
}
