package daeploy

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Certificate is what is known of an OpenSSH user certificate that was proven:
// enough to ask later whether it still holds.
type Certificate struct {
	Serial     uint64    `json:"serial"`
	ID         string    `json:"id"`               // the key id, as the CA wrote it
	CA         KeyID     `json:"ca"`               // who signed it
	Expires    time.Time `json:"expires,omitzero"` // zero = never
	Principals []string  `json:"principals"`
}

func (c *Certificate) String() string { return fmt.Sprintf("serial %d of CA %s", c.Serial, c.CA) }

// Holder is the actor that the certificate makes, of the key that it certifies.
// Principals that are no right here are left out; ok tells whether any is left.
//
//	admin     everything
//	NAME      the app of that name: to push, read and change it; app:NAME, too
//	read:NAME that app, only to read it
func (c *Certificate) Holder(key KeyID, remote string) (a Actor, ok bool) {
	a = Actor{Name: c.name(), Key: key, Certificate: c, Remote: remote}
	for _, p := range c.Principals {
		name, reads := strings.CutPrefix(p, "read:")
		name, long := strings.CutPrefix(name, "app:")
		app, err := ParseAppName(name)
		switch {
		case p == "admin":
			a.Admin = true
		case err != nil, reads && long:
		case reads:
			a.Read = append(a.Read, app)
		default:
			a.Apps = append(a.Apps, app)
		}
	}
	slices.Sort(a.Apps)
	slices.Sort(a.Read)
	a.Apps, a.Read = slices.Compact(a.Apps), slices.Compact(a.Read)
	a.Read = slices.DeleteFunc(a.Read, func(app AppName) bool { return slices.Contains(a.Apps, app) })
	return a, a.Admin || len(a.Apps)+len(a.Read) > 0
}

// name is what people read: the key id in plain ASCII, of a length that fits.
func (c *Certificate) name() string {
	const most = 64
	s := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, strings.TrimSpace(c.ID))
	switch {
	case s == "":
		return fmt.Sprintf("certificate %d", c.Serial)
	case len(s) > most:
		return s[:most-3] + "..."
	}
	return s
}
