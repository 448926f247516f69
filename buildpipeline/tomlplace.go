package buildpipeline

import (
	"bytes"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
)

// keyPlace is where a file names a key, or a table on the way to it.
type keyPlace struct {
	key          toml.Key
	line, column int
}

// namings tells where each key of a file is first named, by the key as
// toml.Key.String writes it. The parser keeps no places of keys, only of some values.
type namings map[string]keyPlace

func readNamings(data []byte) namings {
	first := namings{}
	for _, p := range keyPlaces(data) {
		if name := p.key.String(); first[name].line == 0 {
			first[name] = p
		}
	}
	return first
}

// place is where a key is first named, or 1:1.
func (n namings) place(key string) (line, column int) {
	if p, ok := n[key]; ok {
		return p.line, p.column
	}
	return 1, 1
}

// TOMLPlace finds where a file names a key, or else the nearest table that it is
// in; 0 if it names none. In an array of tables, nth says in which of them, from 1.
func TOMLPlace(data []byte, nth int, key ...string) (line, column int) {
	table, found := 0, 0
	for _, p := range keyPlaces(data) {
		if len(p.key) == 1 && p.key[0] == key[0] {
			table++
		}
		if nth > 0 && table != nth || len(p.key) <= found || len(p.key) > len(key) || !slices.Equal(p.key, key[:len(p.key)]) {
			continue
		}
		line, column, found = p.line, p.column, len(p.key)
	}
	return line, column
}

// keyPlaces lists every part of every key in the order of the file, each with
// the path from the top that ends in it. It may leave keys out of a file that
// the parser refuses.
func keyPlaces(data []byte) []keyPlace {
	s := &keyScanner{data: data}
	var table toml.Key
	for {
		s.blanks(true)
		switch c := s.peek(); {
		case s.at >= len(s.data):
			return s.places
		case c == '[':
			for s.peek() == '[' {
				s.at++
			}
			table = s.keyPath(nil)
			for s.peek() == ']' {
				s.at++
			}
		default:
			before := s.at
			s.pair(table)
			if s.at == before {
				s.at++ // no TOML: on, so that this ends
			}
		}
	}
}

type keyScanner struct {
	data        []byte
	at          int
	line, begin int // of the last place: lines before it, and where its line begins
	places      []keyPlace
}

func (s *keyScanner) peek() byte {
	if s.at >= len(s.data) {
		return 0
	}
	return s.data[s.at]
}

// blanks skips white space and, where lines may end, line ends and comments.
func (s *keyScanner) blanks(lines bool) {
	for s.at < len(s.data) {
		switch c := s.data[s.at]; {
		case c == ' ' || c == '\t':
		case lines && (c == '\n' || c == '\r'):
		case lines && c == '#':
			for s.at < len(s.data) && s.data[s.at] != '\n' {
				s.at++
			}
			continue
		default:
			return
		}
		s.at++
	}
}

// pair reads KEY = VALUE.
func (s *keyScanner) pair(table toml.Key) {
	key := s.keyPath(table)
	if s.peek() == '=' {
		s.at++
		s.value(key)
	}
}

// keyPath reads a dotted key and what follows it up to the next character
// that is not blank.
func (s *keyScanner) keyPath(table toml.Key) toml.Key {
	key := append(toml.Key{}, table...)
	for {
		s.blanks(false)
		start := s.at
		part := s.keyPart()
		if s.at == start {
			return key
		}
		key = append(key, part)
		s.note(key, start)
		s.blanks(false)
		if s.peek() != '.' {
			return key
		}
		s.at++
	}
}

func (s *keyScanner) keyPart() string {
	start := s.at
	if c := s.peek(); c == '"' || c == '\'' {
		s.at = endOfString(s.data, s.at)
		text := string(s.data[start:s.at])
		if c == '"' {
			// TOML's escapes in keys are Go's, but for \e, which nobody needs.
			if plain, err := strconv.Unquote(text); err == nil {
				return plain
			}
		}
		return text[1:max(1, len(text)-1)]
	}
	for s.at < len(s.data) && bareKey(s.data[s.at]) {
		s.at++
	}
	return string(s.data[start:s.at])
}

func bareKey(c byte) bool {
	return c == '-' || c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// note keeps the place of a key that begins at start. Lines are counted from
// the last one on: from the top each time would take the square of the file.
func (s *keyScanner) note(key toml.Key, start int) {
	for {
		next := bytes.IndexByte(s.data[s.begin:start], '\n')
		if next < 0 {
			break
		}
		s.line, s.begin = s.line+1, s.begin+next+1
	}
	s.places = append(s.places, keyPlace{slices.Clone(key), s.line + 1, 1 + utf8.RuneCount(s.data[s.begin:start])})
}

// value skips a value, but for the keys of inline tables in it.
func (s *keyScanner) value(key toml.Key) {
	s.blanks(false)
	switch s.peek() {
	case '"', '\'':
		s.at = endOfString(s.data, s.at)
	case '[':
		s.inside(']', func() { s.value(key) })
	case '{':
		s.inside('}', func() { s.pair(key) })
	default:
		for s.at < len(s.data) && !bytes.ContainsRune([]byte(",]}#\r\n"), rune(s.data[s.at])) {
			s.at++
		}
	}
}

// inside reads what stands between brackets, one element by each call of each.
func (s *keyScanner) inside(end byte, each func()) {
	s.at++
	for s.at < len(s.data) {
		s.blanks(true)
		switch s.peek() {
		case end:
			s.at++
			return
		case ',':
			s.at++
			continue
		}
		before := s.at
		each()
		if s.at == before {
			s.at++
		}
	}
}
