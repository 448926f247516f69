package buildpipeline_test

import (
	"errors"
	"testing"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/buildpipeline"
)

// TestAllowedUIDs is the table of S132 (C44). What runs is the assemble-user
// label if there is one, else USER.
func TestAllowedUIDs(t *testing.T) {
	for _, test := range []struct {
		ranges, user, label string
		want                bool
	}{
		{"", "root", "", true},
		{"", "", "", true},
		{"0", "default", "", false},
		{"1-", "0", "", false},
		{"1-", "", "", false},
		{"1-", "root:wheel", "", false},
		{"1-", "5:5000", "", true},
		{"1-", "5:group", "", true},
		{"1-", "431", "", true},
		{"1-", "200", "0", false},
		{"1-", "0", "10", true},
		{"1-", "200", "10", true},
		{"1-10,30-", "100", "", true},
		{"1-10,30-", "20", "", false},
		{"1-10,30-", "10", "", true},
		{" 1-10 ,\t30 ", "30", "", true},
		{"-1000", "80", "", true},
		{"-1000", "", "", true},
		{"-1000", "1001", "", false},
		{"0", "00", "", true},
		{"0-", "-1", "", false},
		{"0-", "+1", "", false},
		{"0-", "4294967296", "", false},
		{"0-", " 1", "", true}, // white space around the value of a label or USER is cut
		{"0-", "1x", "", false},
	} {
		if err := buildpipeline.CheckUser(test.ranges, test.user, test.label); (err == nil) != test.want {
			t.Errorf("ranges %q, USER %q, label %q: %v, want allowed %v", test.ranges, test.user, test.label, err, test.want)
		}
	}
}

// TestUIDRangesFaults: S131.
func TestUIDRangesFaults(t *testing.T) {
	for _, text := range []string{" ", "-", "1,", ",1", "1,,2", "4-5-1", "-1-5", "5-4", "root", "1-x", "x-1", "1 2", "0x10", "+1", "4294967296", "1-4294967296"} {
		if u, err := buildpipeline.ParseUIDRanges(text); err == nil {
			t.Errorf("%q is read as %s", text, u)
		}
	}
}

// TestUserNotAllowed: the words of section 11.
func TestUserNotAllowed(t *testing.T) {
	for user, shown := range map[string]string{"root:\x1b[2J": `root:?[2J`, "": "0", "11:11": "11:11"} {
		want := `example.org/b:1 runs as "` + shown + `"; this server allows numeric users in 1-10,30-,20`
		var e *daeploy.Error
		if err := buildpipeline.CheckUser("1-10, 30-, 20", user, ""); !errors.As(err, &e) || e.Code != "user_not_allowed" || e.Message != want {
			t.Errorf("%v, want user_not_allowed %q", err, want)
		}
	}
}

// FuzzUIDRanges: what is read means the same when it is read again.
func FuzzUIDRanges(f *testing.F) {
	for _, text := range []string{"1-10, 30-", "-1000", "0", "4-5-1", "-", "1,"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		u, err := buildpipeline.ParseUIDRanges(text)
		if err != nil {
			return
		}
		again, err := buildpipeline.ParseUIDRanges(u.String())
		if err != nil || again.String() != u.String() {
			t.Errorf("%q is read as %q, that as %q (%v)", text, u, again, err)
		}
	})
}
