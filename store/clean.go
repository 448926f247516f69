package store

import (
	"strings"
	"unicode/utf8"
)

// maxLine is the longest line a view shows, in bytes; longer ones are split.
const maxLine = 8 << 10

const resetColour = "\x1b[0m"

// cleaner makes lines fit for a terminal of an app's raw output, and is the
// only place that does (F94). What it lets through:
//
//   - printable characters, tabs, and colour (ESC [ digits ; m), which is reset
//     at the end of its line and not carried over;
//   - a line end for each "\n", "\r\n", and "\r" elsewhere;
//   - U+FFFD for each byte that is not UTF-8.
//
// All other control characters, escape sequences and bidirectional controls
// vanish. No escape sequence reaches beyond its line, so none can swallow what
// follows. The lines do not depend on how the output was cut into writes, and
// cleaning them again does not change them.
type cleaner struct {
	line   []byte // the line so far, without its reset
	open   bool   // a line has begun: the next end of line is its end
	lit    bool   // colour is on at its end
	cr     bool   // the last byte was "\r"
	state  state
	params []byte // of the control sequence so far
	bad    bool   // it can't be colour
	part   []byte // of a character, up to three bytes
}

// state is what the next byte belongs to.
type state byte

const (
	text     state = iota
	escape         // behind ESC
	escapeNF       // behind ESC and an intermediate byte: up to a final one
	control        // behind ESC [
	str            // inside OSC, DCS, APC, PM or SOS: up to BEL or ST
)

const esc = 0x1b

// write takes raw output; emit gets each line that is complete, without line
// end. The line is valid during the call only.
func (c *cleaner) write(p []byte, emit func(line []byte)) {
	for i := 0; i < len(p); {
		n := 0
		if c.state == text && len(c.part) == 0 {
			for n < len(p)-i && p[i+n] >= ' ' && p[i+n] <= '~' {
				n++
			}
		}
		if n > 0 {
			c.ascii(p[i:i+n], emit)
			i += n
			continue
		}
		c.step(p[i], emit)
		i++
	}
}

// end says that no output follows for now: what is left becomes a line.
func (c *cleaner) end(emit func(line []byte)) {
	c.dropPart(emit)
	c.breakLine(emit)
}

// breakLine ends the line if one has begun. Half a character or escape
// sequence waits for its other half.
func (c *cleaner) breakLine(emit func(line []byte)) {
	if c.open {
		c.endLine(emit)
	}
}

func (c *cleaner) endLine(emit func(line []byte)) {
	if c.lit {
		c.line = append(c.line, resetColour...)
	}
	emit(c.line)
	c.line, c.open, c.lit = c.line[:0], false, false
}

// ascii adds a run of printable ASCII.
func (c *cleaner) ascii(run []byte, emit func(line []byte)) {
	c.cr = false
	for len(run) > 0 {
		n := min(len(run), c.room(c.lit))
		if n == 0 {
			c.endLine(emit)
			continue
		}
		c.line = append(c.line, run[:n]...)
		c.open = true
		run = run[n:]
	}
}

// add adds a character or colour; lit tells whether colour is on behind it.
func (c *cleaner) add(token string, lit bool, emit func(line []byte)) {
	if len(token) > c.room(lit) {
		lit = lit && token[0] == esc // a new line begins without colour
		c.endLine(emit)
	}
	c.line = append(c.line, token...)
	c.open, c.lit = true, lit
}

// room is how many bytes the line can still take if a reset must, or need not,
// follow them.
func (c *cleaner) room(lit bool) int {
	room := maxLine - len(c.line)
	if lit {
		room -= len(resetColour)
	}
	return max(0, room)
}

func (c *cleaner) step(b byte, emit func(line []byte)) {
	behindCR := c.cr
	c.cr = b == '\r'
	if b == '\n' || b == '\r' {
		c.dropPart(emit)
		c.state = text
		if b == '\r' || !behindCR {
			c.endLine(emit)
		}
		return
	}
	switch c.state {
	case text:
		c.character(b, emit)
	case escape:
		c.afterEscape(b, emit)
	case escapeNF:
		if b < ' ' || b > '/' {
			c.leave(b, b >= '0' && b <= '~', emit)
		}
	case control:
		c.inControl(b, emit)
	case str:
		c.inString(b)
	}
}

// leave ends an escape sequence; a byte that is not part of it starts anew.
func (c *cleaner) leave(b byte, part bool, emit func(line []byte)) {
	c.state = text
	if !part {
		c.step(b, emit)
	}
}

func (c *cleaner) character(b byte, emit func(line []byte)) {
	if b < utf8.RuneSelf {
		c.dropPart(emit)
		switch {
		case b == esc:
			c.state = escape
		case b == '\t' || b >= ' ' && b <= '~':
			c.add(string(rune(b)), c.lit, emit)
		}
		return
	}
	c.part = append(c.part, b)
	for len(c.part) > 0 && utf8.FullRune(c.part) {
		r, n := utf8.DecodeRune(c.part)
		c.part = append(c.part[:0], c.part[n:]...)
		if !hidden(r) {
			c.add(string(r), c.lit, emit)
		}
	}
}

// dropPart shows the bytes of a character that does not go on.
func (c *cleaner) dropPart(emit func(line []byte)) {
	for range c.part {
		c.add(string(utf8.RuneError), c.lit, emit)
	}
	c.part = c.part[:0]
}

func (c *cleaner) afterEscape(b byte, emit func(line []byte)) {
	switch {
	case b == '[':
		c.state, c.params, c.bad = control, c.params[:0], false
	case strings.IndexByte("]PX^_", b) >= 0:
		c.state = str
	case b >= ' ' && b <= '/':
		c.state = escapeNF
	default:
		c.leave(b, b >= '0' && b <= '~', emit)
	}
}

func (c *cleaner) inControl(b byte, emit func(line []byte)) {
	const most = 64 // parameter bytes of a colour
	switch {
	case b >= '0' && b <= '9' || b == ';':
		if len(c.params) < most {
			c.params = append(c.params, b)
		} else {
			c.bad = true
		}
	case b >= ' ' && b <= '?':
		c.bad = true
	case b >= '@' && b <= '~':
		c.state = text
		if b == 'm' && !c.bad {
			lit := strings.Trim(string(c.params), "0;") != ""
			c.add("\x1b["+string(c.params)+"m", lit, emit)
		}
	default:
		c.leave(b, false, emit)
	}
}

func (c *cleaner) inString(b byte) {
	const bell, cancel, substitute = 0x07, 0x18, 0x1a
	switch b {
	case esc: // ESC \ ends the string, and so does any other
		c.state = escape
	case bell, cancel, substitute:
		c.state = text
	}
}

// hidden tells whether a character acts instead of being shown: C1 controls,
// and those that turn the direction of what stands around them.
func hidden(r rune) bool {
	switch {
	case r >= 0x80 && r <= 0x9f, r == 0x061c, r == 0x200e, r == 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069:
		return true
	}
	return false
}
