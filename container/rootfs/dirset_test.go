package rootfs_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy/container/rootfs"
)

// A set is what a map of paths would be of which all below a path is taken out.
func TestDirSet(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	within := func(p, dir string) bool { return p == dir || dir == "." || strings.HasPrefix(p, dir+"/") }
	name := func() string {
		words := make([]string, random.IntN(4))
		for i := range words {
			words[i] = string(rune('a' + random.IntN(3)))
		}
		if len(words) == 0 {
			return "."
		}
		return strings.Join(words, "/")
	}
	var set rootfs.DirSet
	plain := map[string]bool{}
	for n := range 20_000 {
		p := name()
		switch random.IntN(4) {
		case 0:
			set.Drop(p)
			maps.DeleteFunc(plain, func(q string, _ bool) bool { return within(q, p) })
		default:
			set.Add(p)
			plain[p] = true
		}
		p = name()
		if set.Has(p) != plain[p] {
			t.Fatalf("step %d: it has %s: %t", n, p, set.Has(p))
		}
		var want []string
		for q := range plain {
			if within(q, p) {
				want = append(want, q)
			}
		}
		got := slices.Collect(set.Within(p))
		for i, q := range got {
			for _, below := range got[i+1:] {
				if within(below, q) {
					t.Fatalf("step %d: %s comes after %s", n, below, q)
				}
			}
		}
		slices.Sort(want)
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("step %d, within %s (-want +got):\n%s", n, p, diff)
		}
	}
}

// To replace many directories costs as many lookups, not as many looks at all.
func TestDirSetIsLinear(t *testing.T) {
	const n = 200_000
	var set rootfs.DirSet
	for i := range n {
		set.Add(fmt.Sprintf("a/%d/%d", i%100, i))
	}
	began := time.Now()
	for i := range n {
		set.Drop(fmt.Sprintf("a/%d/%d", i%100, i))
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("%d directories are dropped in %v", n, took)
	}
	if left := slices.Collect(set.Within(".")); len(left) > 0 {
		t.Errorf("left: %d", len(left))
	}
}
