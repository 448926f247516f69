package store_test

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/store"
)

func FuzzClean(f *testing.F) {
	for _, seed := range []string{
		"", "a\n", "\x1b[31mred\n", "10%\r20%\r\n", "\x1b]8;;x\x1b\\y\x1b]8;;\x07", "\xe2\x82", "\u009b31m", "\x1b[1;2", "\x1b\x1b[m",
		"\u202e", strings.Repeat("x", store.MaxLine-3) + "\x1b[31m€\n", "\x1b[" + strings.Repeat("0;", 40) + "m",
	} {
		f.Add([]byte(seed), uint8(1), uint8(3))
	}
	f.Fuzz(func(t *testing.T, in []byte, a, b uint8) {
		checkCleaner(t, in, int(a), int(b))
		// Long lines are rare in what a fuzzer finds, and the hard part.
		checkCleaner(t, bytes.Repeat(in, 1+2*store.MaxLine/(len(in)+1)), int(a)*100, int(b))
	})
}

func FuzzRecord(f *testing.F) {
	for _, kind := range []byte("dopfx") {
		f.Add(store.EncodeRecord(kind, time.Unix(1, 2), 3, []byte("text")))
	}
	f.Add([]byte("o\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		kind, at, end, payload, err := store.DecodeRecord(b)
		if err == nil && !bytes.Equal(store.EncodeRecord(kind, at, end, payload), b) {
			t.Errorf("%q was decoded, and is not what is encoded", b)
		}
		n, err := store.ReadRecords(bytes.NewReader(b))
		if err != nil || n > len(b)/28 {
			t.Errorf("%d bytes read as %d records, %v", len(b), n, err)
		}
	})
}

// FuzzLogFile puts anything in the place of a log. It may not be shown, but
// nothing may break, and a writer can always go on.
func FuzzLogFile(f *testing.F) {
	whole := bytes.Join([][]byte{
		store.EncodeRecord('d', time.Unix(1, 0), 0, []byte("> assemble")),
		store.EncodeRecord('p', time.Unix(2, 0), 0, []byte("par")),
		store.EncodeRecord('o', time.Unix(3, 0), 5, []byte("ts\n")),
		store.EncodeRecord('f', time.Unix(4, 0), 5, nil),
	}, nil)
	f.Add(whole)
	f.Add(whole[:len(whole)-1])
	f.Add(append(bytes.Clone(whole), whole...))
	f.Add(whole[38:])
	f.Add(append([]byte("0"), whole...)) // the end is sound, the beginning is not
	f.Add([]byte("> assemble\n"))
	dir := f.TempDir()
	s := open(f, dir)
	id, l := running(f, s)
	must(f, l.Close())
	f.Fuzz(func(t *testing.T, b []byte) {
		must(t, os.WriteFile(logFile(dir), b, 0o600))
		for _, v := range []daeploy.LogView{{}, {Raw: true}, {JSON: true}, {Quiet: true}} {
			var out strings.Builder
			if err := s.CopyLog(t.Context(), &out, id, v); err != nil {
				t.Errorf("view %+v: %v", v, err)
			}
		}
		tail, err := s.LogTail(id, 3)
		if err != nil || len(tail) > 3 {
			t.Errorf("tail of %d lines, %v", len(tail), err)
		}
		l, err := s.OpenLog(id)
		must(t, err)
		_ = l.Output([]byte("goes on\n"), l.OutputEnd()+8) // refused if it happens to be finished
		must(t, l.Close())
		if _, err := store.ReadRecords(strings.NewReader(read(t, logFile(dir)))); err != nil {
			t.Error(err)
		}
	})
}
