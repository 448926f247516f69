package store_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/daeploy/daeploy"
)

func TestVariables(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	_, err := s.CreateApp("blog")
	must(t, err)
	if none, err := s.Variables("blog"); err != nil || len(none) > 0 {
		t.Errorf("Variables at first = %v, %v", none, err)
	}
	must(t, s.SetVariables("blog", []daeploy.Variable{{Name: "B", Value: "1\n<&>"}, {Name: "A", Value: "", Persist: true}}))
	must(t, s.SetVariables("blog", []daeploy.Variable{{Name: "B", Value: "2", Persist: true}, {Name: "C.d-e", Value: "3"}}))
	must(t, s.Close())
	s = open(t, dir)
	got, err := s.Variables("blog")
	must(t, err)
	want := []daeploy.Variable{{Name: "A", Persist: true}, {Name: "B", Value: "2", Persist: true}, {Name: "C.d-e", Value: "3"}}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(daeploy.Variable{}, "Set")); diff != "" || time.Since(got[0].Set) > time.Minute {
		t.Errorf("Variables, set %v (-want +got):\n%s", got[0].Set, diff)
	}
	wantError(t, s.UnsetVariables("blog", []string{"A", "C.de"}), daeploy.NotFound, `"C.de"`, "did you mean C.d-e?")
	must(t, s.UnsetVariables("blog", []string{"C.d-e", "B"}))
	if got, err := s.Variables("blog"); err != nil || len(got) != 1 || got[0].Name != "A" {
		t.Errorf("Variables after UnsetVariables = %v, %v", got, err)
	}
	must(t, s.UnsetVariables("blog", []string{"A"}))
	wantError(t, s.UnsetVariables("blog", []string{"A"}), daeploy.NotFound, `"A"`, "")
	must(t, s.SetVariables("blog", []daeploy.Variable{{Name: "A", Value: "old"}}))
	must(t, s.DeleteApp("blog"))
	_, err = s.CreateApp("blog")
	must(t, err)
	if got, err := s.Variables("blog"); err != nil || len(got) > 0 {
		t.Errorf("a new app has the old one's variables: %v, %v", got, err)
	}
}

// One that cannot be taken means that none is set.
func TestVariablesRefused(t *testing.T) {
	s := open(t, t.TempDir())
	_, err := s.CreateApp("blog")
	must(t, err)
	var many, large []daeploy.Variable
	for i := range 101 {
		many = append(many, daeploy.Variable{Name: fmt.Sprintf("V%d", i)})
	}
	for i := range 17 {
		large = append(large, daeploy.Variable{Name: fmt.Sprintf("V%d", i), Value: strings.Repeat("x", 64<<10)})
	}
	for name, tt := range map[string]struct {
		list []daeploy.Variable
		kind daeploy.Kind
		want string
	}{
		"reserved": {[]daeploy.Variable{{Name: "A"}, {Name: "DAEPLOY_APP", Value: "x"}}, daeploy.Invalid, "reserved"},
		"name":     {[]daeploy.Variable{{Name: "A"}, {Name: "A B"}}, daeploy.Invalid, `"A B"`},
		"many":     {many, daeploy.Failure, "101 variables"},
		"large":    {large, daeploy.Failure, "1114112 bytes"},
	} {
		wantError(t, s.SetVariables("blog", tt.list), tt.kind, tt.want, "")
		if got, err := s.Variables("blog"); err != nil || len(got) > 0 {
			t.Errorf("%s: %v, %v are set", name, got, err)
		}
	}
	must(t, s.SetVariables("blog", many[:100]))
	must(t, s.SetVariables("blog", many[:100]))
	wantError(t, s.SetVariables("blgo", nil), daeploy.NotFound, "blgo", "blog")
	_, err = s.Variables("blgo")
	wantError(t, err, daeploy.NotFound, "blgo", "blog")
}
