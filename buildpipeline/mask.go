package buildpipeline

import (
	"bytes"
	"cmp"
	"slices"
)

// redacted stands where a text was that nobody may read (S76).
const redacted = "redacted"

// masker replaces texts in a stream of bytes: at each place the longest that
// begins there. What it gives depends on the bytes alone, not on how they were
// cut, and it keeps no state but the bytes it holds back: a new masker that
// begins with those goes on as the old one would have.
type masker struct {
	texts [256][][]byte // by their first byte, longest first
	any   bool
	held  []byte // what may be the beginning of a text, always less than the longest
	out   []byte
}

// newMasker takes texts of 1 to daeploy.OutputKept bytes.
func newMasker(texts []string) *masker {
	m := &masker{}
	for _, t := range texts {
		if t != "" {
			m.texts[t[0]] = append(m.texts[t[0]], []byte(t))
			m.any = true
		}
	}
	for _, texts := range m.texts {
		slices.SortStableFunc(texts, func(a, b []byte) int { return cmp.Compare(len(b), len(a)) })
	}
	return m
}

// next masks what was held back and p. The last held bytes are not in masked
// yet; masked is valid until the next call.
func (m *masker) next(p []byte) (masked []byte, held int) {
	if !m.any {
		return p, 0
	}
	return m.mask(p, false)
}

// rest masks what was held back, when nothing more will come.
func (m *masker) rest() []byte {
	masked, _ := m.mask(nil, true)
	return masked
}

func (m *masker) mask(p []byte, last bool) (masked []byte, held int) {
	text := append(m.held, p...)
	m.out = m.out[:0]
	from := 0 // what lies before is in out
	for i := 0; i < len(text); i++ {
		if m.texts[text[i]] == nil {
			continue
		}
		n, more := m.match(text[i:])
		if more && !last {
			m.out = append(m.out, text[from:i]...)
			m.held = text[:copy(text, text[i:])]
			return m.out, len(m.held)
		}
		if n > 0 {
			m.out = append(append(m.out, text[from:i]...), redacted...)
			from = i + n
			i = from - 1
		}
	}
	m.out = append(m.out, text[from:]...)
	m.held = text[:0]
	return m.out, 0
}

// match gives the length of the longest text at the beginning of b, and whether
// a longer one might be there if b went on.
func (m *masker) match(b []byte) (n int, more bool) {
	for _, t := range m.texts[b[0]] {
		if len(t) > len(b) {
			more = more || bytes.HasPrefix(t, b)
		} else if bytes.HasPrefix(b, t) {
			return len(t), more
		}
	}
	return 0, more
}

// maskedLog writes a script's output into the log without what nobody may read.
// What it holds back is not in the log, nor counted by its OutputEnd, so that
// the next daemon reads it again.
type maskedLog struct {
	log    Log
	masker *masker
	end    int64 // of what was read
}

// Output is Log.Output.
func (l *maskedLog) Output(p []byte, end int64) error {
	l.end = end
	masked, held := l.masker.next(p)
	return l.write(masked, end-int64(held))
}

// finish writes what is held back: the script has ended by itself.
func (l *maskedLog) finish() error {
	return l.write(l.masker.rest(), l.end)
}

func (l *maskedLog) write(p []byte, end int64) error {
	if len(p) == 0 {
		return nil
	}
	return l.log.Output(p, end)
}
