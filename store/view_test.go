package store_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/store"
)

func TestViews(t *testing.T) {
	type object struct {
		Time   time.Time `json:"time"`
		Stream string    `json:"stream"`
		Text   string    `json:"text"`
	}
	synctest.Test(t, func(t *testing.T) {
		s := open(t, t.TempDir())
		id, l := running(t, s)
		begin := time.Now().UTC()
		must(t, l.Say("> assemble   <script>"))
		time.Sleep(time.Second)
		must(t, l.Output([]byte("\n a \x1b[31mred\nerror: no\x00"), 1))
		time.Sleep(time.Second)
		must(t, l.Say("error: assemble failed"))
		for name, test := range map[string]struct {
			view daeploy.LogView
			want string
		}{
			"text":  {daeploy.LogView{}, "> assemble   <script>\n  |\n  |  a \x1b[31mred\x1b[0m\n  | error: no\nerror: assemble failed\n"},
			"quiet": {daeploy.LogView{Quiet: true}, "> assemble   <script>\nerror: assemble failed\n"},
			"raw":   {daeploy.LogView{Raw: true}, "\n a \x1b[31mred\nerror: no\x00"},
		} {
			if got := show(t, s, id, test.view); got != test.want {
				t.Errorf("%s view:\n%q\nwant:\n%q", name, got, test.want)
			}
		}
		var got []object
		for line := range strings.Lines(show(t, s, id, daeploy.LogView{JSON: true})) {
			d := json.NewDecoder(strings.NewReader(line))
			d.DisallowUnknownFields()
			var o object
			must(t, d.Decode(&o))
			got = append(got, o)
		}
		want := []object{
			{begin, "daeploy", "> assemble   <script>"},
			{begin.Add(time.Second), "app", ""},
			{begin.Add(time.Second), "app", " a \x1b[31mred\x1b[0m"},
			{begin.Add(time.Second), "app", "error: no"},
			{begin.Add(2 * time.Second), "daeploy", "error: assemble failed"},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("JSON view (-want +got):\n%s", diff)
		}
	})
	t.Attr("F94", "the same output as a view and raw: the raw one has its NUL and its colour as they were")
	t.Attr("F95", "a line of the app that begins as ours do: it stands behind the bar in the text, under app in JSON")
}

// F94: what a view lets through, and S52: it skips no lines and trims no blanks.
func TestClean(t *testing.T) {
	long := strings.Repeat("x", store.MaxLine)
	for name, test := range map[string]struct{ in, want string }{
		"nothing":               {"", ""},
		"blanks and tabs":       {"  a\tb  \n", "  a\tb  \n"},
		"empty lines":           {"\n\na\n\n", "\n\na\n\n"},
		"no last line end":      {"a", "a\n"},
		"UTF-8":                 {"é€😀\n", "é€😀\n"},
		"carriage returns":      {"10%\r20%\r\ndone\r", "10%\n20%\ndone\n"},
		"several of them":       {"a\r\rb\r\r\n", "a\n\nb\n\n"},
		"C0 and DEL":            {"a\x00b\x07c\x08d\x0be\x0cf\x0eg\x7fh\n", "abcdefgh\n"},
		"C1 in UTF-8":           {"a\u0080b\u009b31mc\u009dd\u009f\n", "ab31mcd\n"},
		"C1 as bytes":           {"a\x9b31m\n", "a\ufffd31m\n"},
		"bidi":                  {"a\u202eb\u2066c\u200fd\u061c\n", "abcd\n"},
		"invalid UTF-8":         {"a\xffb\xe2\x82c\xc0\xafd\xed\xa0\x80\n", "a\ufffdb\ufffd\ufffdc\ufffd\ufffdd\ufffd\ufffd\ufffd\n"},
		"half a character":      {"a\xe2\x82", "a\ufffd\ufffd\n"},
		"and a line end":        {"\xf0\x9f\nb", "\ufffd\ufffd\nb\n"},
		"colour":                {"\x1b[31mred\x1b[0m \x1b[1;38;5;196mmore\x1b[m\n", "\x1b[31mred\x1b[0m \x1b[1;38;5;196mmore\x1b[m\n"},
		"colour not reset":      {"\x1b[31mred\nplain\n", "\x1b[31mred\x1b[0m\nplain\n"},
		"colour at the end":     {"\x1b[31mred", "\x1b[31mred\x1b[0m\n"},
		"colour and CR":         {"\x1b[32m50%\r", "\x1b[32m50%\x1b[0m\n"},
		"unfinished colour":     {"a\x1b[31\nb\n", "a\nb\n"},
		"colour that is none":   {"a\x1b[>4mb\x1b[?1mc\x1b[1 md\x1b[38:2:1me\n", "abcde\n"},
		"endless colour":        {"a\x1b[" + strings.Repeat("1;", 100) + "mb\n", "ab\n"},
		"cursor moves":          {"a\x1b[2Jb\x1b[1;1Hc\x1b[?25ld\x1b[1Ae\n", "abcde\n"},
		"other escapes":         {"a\x1bcb\x1b7c\x1b(Bd\x1b#8e\x1b%Gf\n", "abcdef\n"},
		"title":                 {"a\x1b]0;title\x07b\n", "ab\n"},
		"hyperlink, clipboard":  {"\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\ \x1b]52;c;aGk=\x07\n", "link \n"},
		"DCS APC PM SOS":        {"a\x1bPx\x1b\\b\x1b_x\x1b\\c\x1b^x\x1b\\d\x1bXx\x1b\\e\n", "abcde\n"},
		"string without end":    {"a\x1b]0;hide\nshown\n", "a\nshown\n"},
		"string, CR":            {"a\x1b]0;hide\rshown\n", "a\nshown\n"},
		"string, colour":        {"a\x1b]0;hide\x1b[31mred\n", "a\x1b[31mred\x1b[0m\n"},
		"string, CAN":           {"a\x1b]0;hide\x18shown\n", "ashown\n"},
		"escape, escape":        {"\x1b\x1b[31mred\n", "\x1b[31mred\x1b[0m\n"},
		"escape at the end":     {"a\x1b", "a\n"},
		"escape, NUL":           {"\x1b\x00[31mred\n", "[31mred\n"},
		"escape, half":          {"\x1b[3\xe2\x82\xac1m\n", "€1m\n"},
		"only controls":         {"\x00\x07", ""},
		"as long as may be":     {long + "\n", long + "\n"},
		"longer":                {long + "y\n", long + "\ny\n"},
		"no cut in a character": {long[1:] + "€\n", long[1:] + "\n€\n"},
		"long and coloured":     {"\x1b[31m" + long + "\n", "\x1b[31m" + long[9:] + "\x1b[0m\n" + long[:9] + "\n"},
		"colour at the brim":    {long[2:] + "\x1b[31my\n", long[2:] + "\n\x1b[31my\x1b[0m\n"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := string(store.Clean([]byte(test.in))); got != test.want {
				t.Errorf("clean(%.200q)\n got %.200q\nwant %.200q", test.in, got, test.want)
			}
			checkCleaner(t, []byte(test.in), 1, 2)
		})
	}
	t.Attr("F94", "37 kinds of control characters, escapes, broken UTF-8, cut anywhere: only line ends, tabs and colours are left, and cleaning again changes nothing")
}

// checkCleaner checks what holds for every output: cuts don't matter, cleaning
// again changes nothing, and nothing is left that could act on a terminal.
func checkCleaner(t *testing.T, in []byte, cuts ...int) {
	t.Helper()
	once := store.Clean(in)
	var pieces [][]byte
	rest := in
	for i := 0; len(rest) > 0 && len(cuts) > 0; i++ {
		n := min(len(rest), max(1, cuts[i%len(cuts)]))
		pieces, rest = append(pieces, rest[:n]), rest[n:]
	}
	if got := store.Clean(pieces...); string(got) != string(once) {
		t.Errorf("cut into pieces of %v it comes out as\n%q\nin one piece as\n%q", cuts, got, once)
	}
	if again := store.Clean(once); string(again) != string(once) {
		t.Errorf("cleaned twice\n%q\nonce\n%q", again, once)
	}
	for line := range strings.Lines(string(once)) {
		if err := harmless(line); err != nil {
			t.Errorf("%v in line %q", err, line)
		}
	}
}

// harmless is written from the rule, not from the code: only printable
// characters, tabs and whole colour sequences, the last of which is a reset.
func harmless(line string) error {
	line, ended := strings.CutSuffix(line, "\n")
	if !ended {
		return errors.New("no line end")
	}
	if len(line) > store.MaxLine {
		return errors.New("too many bytes")
	}
	last := "\x1b[0m"
	for i, r := range line {
		switch {
		case r == '\x1b':
			params, _, whole := strings.Cut(line[i+1:], "m")
			if !whole || !strings.HasPrefix(params, "[") || strings.Trim(params[1:], "0123456789;") != "" {
				return errors.New("an escape sequence that is no colour")
			}
			last = "\x1b" + params + "m"
		case r == '\t':
		case r < ' ', r >= 0x7f && r <= 0x9f:
			return errors.New("a control character")
		case r == 0x061c, r == 0x200e, r == 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069:
			return errors.New("a bidirectional control")
		}
	}
	if strings.Trim(last, "\x1b[0;m") != "" {
		return errors.New("colour left on")
	}
	return nil
}
