package gitreceive

import "strings"

// configReader reads git's configuration format, one variable at a time. Each
// call of next sets the fields; it is false at the end, or at a fault.
type configReader struct {
	text string
	at   int // bytes that are read

	section, subsection string // the section in lower case, the other as it is
	key, value          string // the key in lower case
	fault               string // what is wrong at at; "" if nothing is
}

func (r *configReader) next() bool {
	for r.fault == "" {
		r.skip(" \t\r\n\v\f")
		if r.at == len(r.text) {
			return false
		}
		switch c := r.text[r.at]; {
		case c == '#' || c == ';':
			r.at += len(r.until("\n"))
		case c == '[':
			r.at++
			r.header()
		case isLetter(c):
			return r.variable()
		default:
			r.fault = "neither a section nor a variable"
		}
	}
	return false
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

func (r *configReader) skip(set string) {
	r.at += len(r.text[r.at:]) - len(strings.TrimLeft(r.text[r.at:], set))
}

// until is the text before the next byte of set, or all that is left.
func (r *configReader) until(set string) string {
	rest := r.text[r.at:]
	if i := strings.IndexAny(rest, set); i >= 0 {
		return rest[:i]
	}
	return rest
}

// word takes letters, digits, and the bytes of more.
func (r *configReader) word(more string) string {
	start := r.at
	for r.at < len(r.text) {
		c := r.text[r.at]
		if !isLetter(c) && (c < '0' || c > '9') && strings.IndexByte(more, c) < 0 {
			break
		}
		r.at++
	}
	return strings.ToLower(r.text[start:r.at])
}

// took takes a byte if it comes next.
func (r *configReader) took(c byte) bool {
	if r.at < len(r.text) && r.text[r.at] == c {
		r.at++
		return true
	}
	return false
}

// header reads what follows the bracket of a section.
func (r *configReader) header() {
	r.section, r.subsection = r.word("-."), ""
	r.skip(" \t")
	if r.took('"') {
		var name strings.Builder
		for !r.took('"') {
			r.took('\\') // what follows stands for itself
			if r.at == len(r.text) || r.text[r.at] == '\n' || r.text[r.at] == 0 {
				r.fault = "a section's name does not end"
				return
			}
			name.WriteByte(r.text[r.at])
			r.at++
		}
		r.subsection = name.String()
	}
	if r.section == "" || !r.took(']') {
		r.fault = "a section does not end"
	}
}

// variable reads a key, and a value if there is one.
func (r *configReader) variable() bool {
	r.key, r.value = r.word("-"), ""
	r.skip(" \t")
	if r.took('=') {
		r.skip(" \t")
		r.readValue()
	} else if r.at < len(r.text) && !strings.ContainsRune("\r\n#;", rune(r.text[r.at])) {
		r.fault = "a variable without ="
	}
	if r.section == "" && r.fault == "" {
		r.fault = "a variable outside of sections"
	}
	return r.fault == ""
}

var configEscapes = map[byte]byte{'n': '\n', 't': '\t', 'b': '\b', '"': '"', '\\': '\\'}

// readValue reads to the end of the line, with quotes, escapes, comments and
// lines that go on.
func (r *configReader) readValue() {
	var value strings.Builder
	quoted, kept := false, 0 // kept: so much stays when blanks at the end are cut
	for ; r.at < len(r.text) && r.text[r.at] != '\n'; r.at++ {
		c := r.text[r.at]
		switch {
		case c == 0:
			r.fault = "a NUL"
			return
		case c == '"':
			quoted = !quoted
			kept = value.Len()
			continue
		case !quoted && (c == '#' || c == ';'):
			r.at += len(r.until("\n")) - 1
			continue
		case c == '\\':
			r.at++
			rest := r.text[r.at:]
			if strings.HasPrefix(rest, "\r\n") {
				r.at++
			}
			if strings.HasPrefix(rest, "\n") || strings.HasPrefix(rest, "\r\n") {
				continue
			}
			if rest == "" || configEscapes[rest[0]] == 0 {
				r.fault = "an escape that git does not know"
				return
			}
			c, kept = configEscapes[rest[0]], value.Len()+1
		case quoted || c != ' ' && c != '\t' && c != '\r':
			kept = value.Len() + 1
		}
		value.WriteByte(c)
	}
	if quoted {
		r.fault = "a quote does not end"
	}
	r.value = value.String()[:kept]
}
