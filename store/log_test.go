package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/store"
)

// running makes a running build and opens its log.
func running(t testing.TB, s *store.Store) (daeploy.BuildID, *store.Log) {
	t.Helper()
	id := queued(t, s, "blog").ID
	become(t, s, id, daeploy.StatusRunning)
	return id, openLog(t, s, id)
}

func openLog(t testing.TB, s *store.Store, id daeploy.BuildID) *store.Log {
	t.Helper()
	l, err := s.OpenLog(id)
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	return l
}

func show(t testing.TB, s *store.Store, id daeploy.BuildID, v daeploy.LogView) string {
	t.Helper()
	var out strings.Builder
	must(t, s.CopyLog(t.Context(), &out, id, v))
	return out.String()
}

func logFile(dir string) string { return filepath.Join(dir, "logs", "blog", "1.log") }

// say writes what most tests here begin with.
func say(t testing.TB, l *store.Log) {
	t.Helper()
	must(t, l.Say("> checkout   214 files", "> assemble   .s2i/bin/assemble"))
	must(t, l.Output([]byte("Collecting flask\nhalf a "), 24))
	must(t, l.Output([]byte("line\n"), 29))
	must(t, l.Say("> assemble   exit 0"))
}

const said = "> checkout   214 files\n> assemble   .s2i/bin/assemble\n  | Collecting flask\n  | half a line\n> assemble   exit 0\n"

func TestLogSurvivesARestart(t *testing.T) { // P5
	dir := t.TempDir()
	s := open(t, dir)
	id, l := running(t, s)
	say(t, l)
	must(t, l.Close())
	must(t, s.Close())

	s = open(t, dir)
	l = openLog(t, s, id)
	if l.OutputEnd() != 29 || l.OutputBytes() != 29 {
		t.Errorf("after a restart the output ends at %d with %d bytes, want 29 and 29", l.OutputEnd(), l.OutputBytes())
	}
	if got := show(t, s, id, daeploy.LogView{}); got != said {
		t.Errorf("log after a restart:\n%s\nwant:\n%s", got, said)
	}
	must(t, l.Output([]byte("more\n"), 40)) // longer in the shim's file: a secret was masked
	must(t, l.Finish())
	must(t, l.Finish())
	must(t, l.Close())
	if got, want := show(t, s, id, daeploy.LogView{Follow: true}), said+"  | more\n"; got != want {
		t.Errorf("finished log:\n%s\nwant:\n%s", got, want)
	}
	l = openLog(t, s, id)
	wantError(t, l.Say("late"), daeploy.Failure, "blog/1 is finished")
	if l.OutputEnd() != 40 || l.OutputBytes() != 34 {
		t.Errorf("the finished log has end %d and %d bytes, want 40 and 34", l.OutputEnd(), l.OutputBytes())
	}
	must(t, l.Finish())
}

func TestOneWriterPerLog(t *testing.T) {
	s := open(t, t.TempDir())
	id, l := running(t, s)
	if _, err := s.OpenLog(id); err == nil || !strings.Contains(err.Error(), "writer already") {
		t.Errorf("a second OpenLog: %v", err)
	}
	must(t, l.Say("> builder")) // the first is not disturbed
	must(t, l.Close())
	if err := l.Say("late"); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Say after Close: %v", err)
	}
	must(t, openLog(t, s, id).Finish())
	if n := s.Feeds(); n != 0 {
		t.Errorf("%d logs are still held", n)
	}
	_, err := s.OpenLog(daeploy.BuildID{App: "blog", Number: 9})
	wantError(t, err, daeploy.NotFound)
}

func TestSayIsPlain(t *testing.T) {
	s := open(t, t.TempDir())
	id, l := running(t, s)
	must(t, l.Say("a\nerror: b\x1b[31m\r\t\x00 \u202eé\xff", strings.Repeat("x", 100_000)))
	got := show(t, s, id, daeploy.LogView{})
	first, rest, _ := strings.Cut(got, "\n")
	if want := "a?error: b?[31m??? ???"; first != want {
		t.Errorf("a hostile line came out as %q, want %q", first, want)
	}
	if len(rest) > 9_000 {
		t.Errorf("an over-long line has %d bytes", len(rest))
	}
}

// TestOutputOfAnySize checks that bytes come back as they went in, and that
// long output is kept in pieces that a reader can hold (S52).
func TestOutputOfAnySize(t *testing.T) {
	s := open(t, t.TempDir())
	id, l := running(t, s)
	var want bytes.Buffer
	for _, n := range []int{0, 1, store.MaxPayload - 1, store.MaxPayload, store.MaxPayload + 1, 3*store.MaxPayload + 7} {
		p := make([]byte, n)
		for i := range p {
			p[i] = byte(i * 7)
		}
		want.Write(p)
		must(t, l.Output(p, int64(want.Len())))
	}
	if got := show(t, s, id, daeploy.LogView{Raw: true}); got != want.String() {
		t.Errorf("%d raw bytes came back, want %d, or their content differs", len(got), want.Len())
	}
	if got := show(t, s, id, daeploy.LogView{Raw: true, Quiet: true}); got != "" {
		t.Errorf("raw and quiet shows %d bytes", len(got))
	}
	if l.OutputBytes() != int64(want.Len()) {
		t.Errorf("OutputBytes = %d, want %d", l.OutputBytes(), want.Len())
	}
}

// TestTornTail cuts a log at every byte, as a crash or a power cut may, with
// and without garbage behind the cut. What was whole stays, and OutputEnd tells
// where to read on without gap or repetition.
func TestTornTail(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	id, l := running(t, s)
	big := bytes.Repeat([]byte("0123456789abcde\n"), store.MaxPayload/16*2) // two records
	must(t, l.Say("> assemble"))
	must(t, l.Output([]byte("one\n"), 4))
	must(t, l.Output(big, 4+int64(len(big))))
	must(t, l.Close())
	whole := []byte(read(t, logFile(dir)))
	const head = 28 // of a record, beside its payload
	first, second := head+len("> assemble"), head+len("> assemble")+head+len("one\n")
	for _, cut := range []int{0, 1, head, first - 1, first, first + 1, second - 1, second, second + 1, second + store.MaxPayload + head, len(whole) - 1, len(whole)} {
		for _, garbage := range []string{"", "\x00", strings.Repeat("\x00", 5_000), "o\x00\x00\x01garbage", string(whole[:first-2])} {
			behind := []byte(garbage)
			if len(behind) > 0 && cut < len(whole) && behind[0] == whole[cut] {
				behind[0] ^= 1 // a byte that was cut off by chance is no garbage
			}
			must(t, os.WriteFile(logFile(dir), append(bytes.Clone(whole[:cut]), behind...), 0o600))
			var end int64
			text := ""
			if cut >= first {
				text = "> assemble\n"
			}
			if cut >= second {
				end, text = 4, text+"  | one\n"
			}
			if cut == len(whole) {
				end += int64(len(big))
				text += "  | " + strings.ReplaceAll(strings.TrimSuffix(string(big), "\n"), "\n", "\n  | ") + "\n"
			}
			if got := show(t, s, id, daeploy.LogView{}); got != text {
				t.Fatalf("cut at %d with %d bytes of garbage: shows %d bytes, want %d", cut, len(garbage), len(got), len(text))
			}
			if lines, err := s.LogTail(id, 1); err != nil || len(lines) != min(1, int(end)) {
				t.Fatalf("cut at %d with %d bytes of garbage: tail is %q, %v", cut, len(garbage), lines, err)
			}
			l, err := s.OpenLog(id)
			must(t, err)
			if l.OutputEnd() != end {
				t.Errorf("cut at %d with %d bytes of garbage: output ends at %d, want %d", cut, len(garbage), l.OutputEnd(), end)
			}
			must(t, l.Output([]byte("goes on\n"), end+8))
			must(t, l.Close())
			if got, want := show(t, s, id, daeploy.LogView{}), text+"  | goes on\n"; got != want {
				t.Fatalf("cut at %d with %d bytes of garbage, continued: shows %d bytes, want %d", cut, len(garbage), len(got), len(want))
			}
		}
	}
}

// TestChangedLog does to the log of a finished build what F123 lists.
func TestChangedLog(t *testing.T) {
	for name, test := range map[string]struct {
		change func(t *testing.T, dir string)
		kind   daeploy.Kind
		words  string
		shown  string
	}{
		"missing": {func(t *testing.T, dir string) {
			must(t, os.Remove(logFile(dir)))
		}, daeploy.NotFound, "the log of blog/1 is gone", ""},
		"directory missing": {func(t *testing.T, dir string) {
			must(t, os.RemoveAll(filepath.Dir(logFile(dir))))
		}, daeploy.NotFound, "the log of blog/1 is gone", ""},
		"shortened": {func(t *testing.T, dir string) {
			info, err := os.Stat(logFile(dir))
			must(t, err)
			must(t, os.Truncate(logFile(dir), info.Size()-1))
		}, daeploy.Failure, "ends early", said},
		"emptied": {func(t *testing.T, dir string) {
			must(t, os.Truncate(logFile(dir), 0))
		}, daeploy.Failure, "ends early", ""},
		"a byte changed": {func(t *testing.T, dir string) {
			b := []byte(strings.Replace(read(t, logFile(dir)), "Collecting", "COLLECTING", 1))
			must(t, os.WriteFile(logFile(dir), b, 0o600))
		}, daeploy.Failure, "ends early", said[:strings.Index(said, "  | ")]},
		"prolonged": {func(t *testing.T, dir string) {
			must(t, os.WriteFile(logFile(dir), []byte(read(t, logFile(dir))+"12345"), 0o600))
		}, daeploy.Failure, "5 bytes behind its end", said},
		"a link": {func(t *testing.T, dir string) {
			must(t, os.Rename(logFile(dir), filepath.Join(dir, "outside.log")))
			must(t, os.Symlink("../../outside.log", logFile(dir)))
		}, daeploy.Failure, "not a plain file", ""},
		"a link to another log": {func(t *testing.T, dir string) {
			must(t, os.Rename(logFile(dir), filepath.Join(filepath.Dir(logFile(dir)), "7.log")))
			must(t, os.Symlink("7.log", logFile(dir)))
		}, daeploy.Failure, "not a plain file", ""},
		"a directory": {func(t *testing.T, dir string) {
			must(t, os.Remove(logFile(dir)))
			must(t, os.Mkdir(logFile(dir), 0o700))
		}, daeploy.Failure, "not a plain file", ""},
		"its directory a link": {func(t *testing.T, dir string) {
			must(t, os.Rename(filepath.Dir(logFile(dir)), filepath.Join(dir, "logs", "shop")))
			must(t, os.Symlink("shop", filepath.Dir(logFile(dir))))
		}, daeploy.Failure, "not a plain file", ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir)
			id, l := running(t, s)
			say(t, l)
			must(t, l.Finish())
			become(t, s, id, daeploy.StatusSucceeded)
			test.change(t, dir)
			for _, follow := range []bool{false, true} {
				var out strings.Builder
				err := s.CopyLog(t.Context(), &out, id, daeploy.LogView{Follow: follow})
				wantError(t, err, test.kind, test.words)
				if out.String() != test.shown {
					t.Errorf("shown:\n%s\nwant:\n%s", out.String(), test.shown)
				}
			}
			if b, err := s.Build(id); err != nil || b.Status != daeploy.StatusSucceeded {
				t.Errorf("the record: %s, %v", b.Status, err)
			}
		})
	}
	t.Attr("F123", "logs that are missing, shorter, longer, changed, links, directories: told, nothing outside is shown, the record stays")
}

// TestLogThroughALink: also the writer follows none.
func TestLogThroughALink(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	id, l := running(t, s)
	must(t, l.Close())
	victim := filepath.Join(t.TempDir(), "victim")
	must(t, os.WriteFile(victim, []byte("precious"), 0o600))
	must(t, os.Remove(logFile(dir)))
	must(t, os.Symlink(victim, logFile(dir)))
	_, err := s.OpenLog(id)
	wantError(t, err, daeploy.Failure, "not a plain file")
	if got := read(t, victim); got != "precious" {
		t.Errorf("the file outside is %q now", got)
	}
	must(t, os.Remove(logFile(dir)))
	must(t, openLog(t, s, id).Finish()) // the refusal has not kept the writer's place
}

// TestBuildThatNeverBegan has no log, and that is in order.
func TestBuildThatNeverBegan(t *testing.T) {
	s := open(t, t.TempDir())
	id := queued(t, s, "blog").ID
	if got := show(t, s, id, daeploy.LogView{}); got != "" {
		t.Errorf("a queued build says %q", got)
	}
	become(t, s, id, daeploy.StatusCanceled)
	if got := show(t, s, id, daeploy.LogView{Follow: true}); got != "" {
		t.Errorf("a build canceled in the queue says %q", got)
	}
	if lines, err := s.LogTail(id, 5); len(lines) != 0 || err != nil {
		t.Errorf("its tail is %q, %v", lines, err)
	}
}

func TestLogTail(t *testing.T) {
	for name, test := range map[string]struct {
		write func(l *store.Log) error
		want  []string
	}{
		"fewer than asked": {func(l *store.Log) error { return l.Output([]byte("a\n\nb"), 4) }, []string{"  | a", "  |", "  | b"}},
		"the last": {func(l *store.Log) error {
			for i := range 2_000 {
				if err := l.Output(fmt.Appendf(nil, "line %d\n", i), 1); err != nil {
					return err
				}
			}
			return l.Say("> assemble   exit 1", "error: assemble failed")
		}, []string{"  | line 1997", "  | line 1998", "  | line 1999"}},
		"across records": {func(l *store.Log) error {
			return errors.Join(l.Output([]byte("x\na\nb\nlo"), 1), l.Output([]byte("ng\r"), 1), l.Output([]byte("\n"), 1))
		}, []string{"  | a", "  | b", "  | long"}},
		"broken by the daemon": {func(l *store.Log) error {
			return errors.Join(l.Output([]byte("a\nhalf"), 1), l.Say("warning: x"), l.Output([]byte(" more"), 1))
		}, []string{"  | a", "  | half", "  |  more"}},
		"more than it reads": {func(l *store.Log) error {
			return l.Output(append(bytes.Repeat([]byte("x"), 2<<20), "\nend\n"...), 1)
		}, nil},
		"nothing": {func(l *store.Log) error { return l.Say("> builder") }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, t.TempDir())
			id, l := running(t, s)
			must(t, test.write(l))
			during, err := s.LogTail(id, 3)
			must(t, err)
			must(t, l.Finish())
			after, err := s.LogTail(id, 3)
			must(t, err)
			if diff := cmp.Diff(during, after); diff != "" {
				t.Errorf("the tail differs once the log is finished (-before +after):\n%s", diff)
			}
			if name == "more than it reads" {
				if len(after) != 3 || after[2] != "  | end" {
					t.Errorf("%d lines, the last %q", len(after), after[len(after)-1])
				}
				return
			}
			if diff := cmp.Diff(test.want, after); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestAppendFails leaves no room for an append: what was written before stays
// whole, there is no half record, and later there may be room again (F107). A
// limit on the size of files stands in for a full disk.
func TestAppendFails(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	id, l := running(t, s)
	say(t, l)
	limitFileSize(t, fileSize(t, logFile(dir))+100, func() {
		if err := l.Output(make([]byte, 1_000), 1_029); err == nil {
			t.Error("an Output that does not fit succeeded")
		}
	})
	if l.OutputEnd() != 29 {
		t.Errorf("after a failed Output the end is %d, want 29", l.OutputEnd())
	}
	if got := show(t, s, id, daeploy.LogView{}); got != said {
		t.Errorf("after a failed Output the log shows:\n%s\nwant:\n%s", got, said)
	}
	must(t, l.Output([]byte("again\n"), 35))
	must(t, l.Finish())
	become(t, s, id, daeploy.StatusFailed)
	if got, want := show(t, s, id, daeploy.LogView{}), said+"  | again\n"; got != want {
		t.Errorf("the log shows:\n%s\nwant:\n%s", got, want)
	}
}

func fileSize(t *testing.T, path string) int64 {
	info, err := os.Stat(path)
	must(t, err)
	return info.Size()
}

// BenchmarkLog writes while many follow. 50 MB/s is wanted.
func BenchmarkLog(b *testing.B) {
	for _, followers := range []int{0, 1, 100} {
		b.Run(fmt.Sprint(followers), func(b *testing.B) {
			s := open(b, b.TempDir())
			id, l := running(b, s)
			ctx, cancel := context.WithCancel(b.Context())
			var all sync.WaitGroup
			for range followers {
				all.Go(func() { _ = s.CopyLog(ctx, io.Discard, id, daeploy.LogView{Follow: true}) })
			}
			p := bytes.Repeat([]byte("Collecting flask==3.0.0 from the index, 101 kB\n"), 32<<10/47)
			b.SetBytes(int64(len(p)))
			end := int64(0)
			for b.Loop() {
				end += int64(len(p))
				if err := l.Output(p, end); err != nil {
					b.Fatal(err)
				}
			}
			cancel()
			all.Wait()
		})
	}
}
