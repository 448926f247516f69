package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/store"
)

// verifyPath names, in the environment of this test program, the database that it is
// to verify instead of running tests.
const verifyPath = "DAEPLOY_TEST_VERIFY"

// inChild verifies as the daemon does: damage may end the process that meets it, or
// keep it busy.
func inChild(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), verifyPath+"="+path)
	out, err := cmd.CombinedOutput()
	if err != nil {
		first, _, _ := strings.Cut(string(out), "\n")
		return fmt.Errorf("%w: %s", err, first)
	}
	return nil
}

const pageSize = 4096

// damages are what may happen to one page of a file. Some can lie inside of a record,
// where a database without sums cannot see it.
var damages = []struct {
	name   string
	inside bool
	do     func(chance *rand.Rand, page, other []byte)
}{
	{"random bytes", false, func(chance *rand.Rand, page, _ []byte) { noise(chance, page) }},
	{"zeros", false, func(_ *rand.Rand, page, _ []byte) { clear(page) }},
	{"another page", false, func(_ *rand.Rand, page, other []byte) { copy(page, other) }},
	{"half of another page", false, func(_ *rand.Rand, page, other []byte) { copy(page[:pageSize/2], other) }},
	{"a random head", false, func(chance *rand.Rand, page, _ []byte) { noise(chance, page[:16]) }},
	{"a random part", true, func(chance *rand.Rand, page, _ []byte) {
		at := chance.IntN(pageSize - 64)
		noise(chance, page[at:at+64])
	}},
	{"one bit", true, func(chance *rand.Rand, page, _ []byte) { page[chance.IntN(pageSize)] ^= 1 << chance.IntN(8) }},
}

func noise(chance *rand.Rand, b []byte) {
	for i := range b {
		b[i] = byte(chance.Uint32())
	}
}

// content is all that a store tells, or the first error.
func content(s *store.Store) (string, error) {
	builds, err := s.Builds(daeploy.BuildFilter{})
	apps, aerr := s.Apps()
	keys, kerr := s.Keys()
	unfinished, uerr := s.Unfinished()
	events, _, eerr := s.Events(daeploy.EventFilter{})
	return fmt.Sprintf("%+v\n%+v\n%+v\n%+v\n%+v", builds, apps, keys, unfinished, events), errors.Join(err, aerr, kerr, uerr, eerr)
}

// TestDamagedPages: F119. A page somewhere in the file is damaged by chance, hundreds of
// times. The store is refused with the command that restores it, or holds all it
// held, or what is wrong is inside of a record, of which the database has no sum: doctor
// finds it if it cannot be read. The daemon's own process outlives all of it.
func TestDamagedPages(t *testing.T) {
	seed := uint64(1)
	if word := os.Getenv("DAEPLOY_TEST_SEED"); word != "" {
		var err error
		seed, err = strconv.ParseUint(word, 10, 64)
		must(t, err)
	}
	chance := rand.New(rand.NewPCG(seed, 119))
	dir := t.TempDir()
	s := open(t, dir)
	must(t, s.CreateApps([]daeploy.AppName{"blog", "shop", "wiki"}))
	for range 3 {
		must(t, s.Fill(manyBuilds(200, "blog", "shop", "wiki"), daeploy.StatusSucceeded))
		queued(t, s, "blog")
	}
	must(t, s.DeleteApp("wiki")) // its pages are free
	_, err := s.CreateApp("wiki")
	must(t, err)
	want, err := content(s)
	must(t, err)
	must(t, s.Close())
	path := filepath.Join(dir, "daeploy.db")
	sound, err := os.ReadFile(path)
	must(t, err)

	times := 70
	if os.Getenv("DAEPLOY_TEST_LONG") != "" {
		times = 700
	}
	var refused, whole, inside, told int
	for n := range times {
		damage := damages[n%len(damages)]
		bad := bytes.Clone(sound)
		page := func() []byte {
			at := chance.IntN(len(bad)/pageSize) * pageSize
			return bad[at : at+pageSize]
		}
		damage.do(chance, page(), page())
		must(t, os.WriteFile(path, bad, 0o600))
		s, err := store.Open(t.Context(), store.Config{Dir: dir, Verify: inChild})
		if err != nil {
			wantError(t, err, daeploy.Config, "daeploy restore FILE")
			after, err := os.ReadFile(path)
			must(t, err)
			if !bytes.Equal(bad, after) {
				t.Errorf("%s, %d: the refused file was changed", damage.name, n)
			}
			refused++
			continue
		}
		got, err := content(s)
		switch {
		case err == nil && got == want:
			whole++
		case err != nil && s.Checkup(t.Context(), t.TempDir())[0].State != daeploy.FindingFail:
			t.Errorf("%s, %d: opened, and cannot be read: %v; doctor does not find it", damage.name, n, err)
		case !damage.inside:
			t.Errorf("%s, %d: opened, and is not what it was: %v", damage.name, n, err)
		case err != nil:
			told++
			fallthrough
		default:
			inside++
		}
		// What is written afterwards is another matter than what was damaged: it may fail.
		_, _ = s.CreateBuild(daeploy.Build{ID: daeploy.BuildID{App: "shop"}, Status: daeploy.StatusQueued})
		must(t, s.Close())
	}
	if refused < times/4 || whole < times/4 {
		t.Errorf("of %d damaged files %d were refused, %d whole: the damage is not what it was to be", times, refused, whole)
	}
	t.Attr("F119", fmt.Sprintf("%d files with one page damaged by chance, seed %d: %d refused with the restore command, %d whole, %d damaged inside of a record, of which doctor tells where it cannot be read (%d); no crash",
		times, seed, refused, whole, inside, told))
}
