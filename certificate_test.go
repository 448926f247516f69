package daeploy_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/daeploy/daeploy"
)

// TestCertificateHolder: principals are rights, and what is none gives none.
func TestCertificateHolder(t *testing.T) {
	type apps = []daeploy.AppName
	for _, tt := range []struct {
		principals string
		admin      bool
		apps, read apps
		ok         bool
	}{
		{"", false, nil, nil, false},
		{"blog", false, apps{"blog"}, nil, true},
		{"shop app:blog blog", false, apps{"blog", "shop"}, nil, true},
		{"read:blog read:shop shop", false, apps{"shop"}, apps{"blog"}, true},
		{"admin", true, nil, nil, true},
		{"app:admin read:admin", false, apps{"admin"}, nil, true},
		{"Admin ADMIN read: app: read:app:blog app:read:blog ../blog *", false, nil, nil, false},
	} {
		c := &daeploy.Certificate{Principals: strings.Fields(tt.principals)}
		a, ok := c.Holder("SHA256:A", "192.0.2.7:4711")
		if ok != tt.ok || a.Admin != tt.admin || !cmp.Equal(a.Apps, tt.apps, cmpopts.EquateEmpty()) || !cmp.Equal(a.Read, tt.read, cmpopts.EquateEmpty()) {
			t.Errorf("%q: %+v, %v", tt.principals, a, ok)
		}
		if a.Key != "SHA256:A" || a.Certificate != c || a.Remote != "192.0.2.7:4711" {
			t.Errorf("%q: the actor is %+v", tt.principals, a)
		}
	}
}

// TestCertificateName: a key id is whatever a CA has written.
func TestCertificateName(t *testing.T) {
	for id, want := range map[string]string{
		"anna@laptop": "anna@laptop", " \n": "certificate 7", "": "certificate 7", "\x1b[2Jé\xff": "?[2J??",
		strings.Repeat("x", 65): strings.Repeat("x", 61) + "...",
	} {
		c := &daeploy.Certificate{ID: id, Serial: 7}
		if a, _ := c.Holder("", ""); a.Name != want {
			t.Errorf("%q is called %q, want %q", id, a.Name, want)
		}
	}
}
