package gitreceive

import (
	"strings"
	"testing"
	"time"
)

const (
	someTree = "tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n"
	someone  = "Bea <bea@example.org> 1700000000 +0200\n"
)

// A commit is read in one go, whatever its header holds, and of its message a line of
// bounded length is kept.
func TestParseCommit(t *testing.T) {
	head := someTree + "parent 1111111111111111111111111111111111111111\nauthor " + someone + "committer " + someone
	for name, c := range map[string]struct{ text, subject string }{
		"plain":              {head + "\nFix cart\n\nAt last.\n", "Fix cart"},
		"no message":         {head, ""},
		"line feeds first":   {head + "\n\n\nlate\n", "late"},
		"signed":             {head + "gpgsig -----BEGIN\n \n author nobody\n tree 22\n -----END\n\nSigned\n", "Signed"},
		"half a million":     {head + "gpgsig x\n" + strings.Repeat(" \n", 500_000) + "\nlong header\n", "long header"},
		"a subject of 1 MB":  {head + "\n" + strings.Repeat("x", 1<<20), strings.Repeat("x", maxSubject) + "..."},
		"cut in a character": {head + "\n" + strings.Repeat("x", maxSubject-1) + "\u00e9\u00e9", strings.Repeat("x", maxSubject-1) + "..."},
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			got, err := parseCommit([]byte(c.text))
			if took := time.Since(began); took > time.Second {
				t.Errorf("it took %s", took)
			}
			if err != nil || got.tree != "4b825dc642cb6eb9a060e54bf8d69288fbee4904" || got.subject != c.subject {
				t.Errorf("tree %s, subject %.40q, %v", got.tree, got.subject, err)
			}
			if got.author.Name != "Bea" || got.author.Email != "bea@example.org" || got.committer.When.Unix() != 1700000000 {
				t.Errorf("author %+v, committer %+v", got.author, got.committer)
			}
		})
	}
	for name, text := range map[string]string{"empty": "", "no tree": "author " + someone + "\nx", "tree of nothing": "tree x\n\nx"} {
		if got, err := parseCommit([]byte(text)); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// F118: what no record can hold becomes the nearest that one can.
func TestWritten(t *testing.T) {
	for at, want := range map[int64]int{-1: 1970, 0: 1970, 1700000000: 2023, 316516204800: 9999, 1<<62 - 1: 9999} {
		got := written(time.Unix(at, 0).In(time.FixedZone("far", 14*60*60)))
		if _, err := got.MarshalJSON(); err != nil || got.UTC().Year() != want {
			t.Errorf("%d is %s (%v), want the year %d", at, got, err, want)
		}
	}
}
