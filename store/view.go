package store

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/daeploy/daeploy"
)

// gutter stands before each line of the app's output, so that none can imitate
// a line of the daemon's or of git's (F95).
const gutter = "  | "

// view renders records as a daeploy.LogView asks for. Only complete lines come
// out of it, so that a line of the daemon's, or a heartbeat, never lands inside
// one of the app's.
type view struct {
	daeploy.LogView
	clean   cleaner
	written time.Time // of the app's output that came last
	step    string    // the word of the last "> word" line
}

// append renders a record behind out.
func (v *view) append(out []byte, r record) []byte {
	switch r.kind {
	case kindSay:
		if word, ok := strings.CutPrefix(string(r.payload), "> "); ok {
			v.step, _, _ = strings.Cut(word, " ")
		}
		return v.say(out, r)
	case kindOutput, kindOutputPart:
		switch {
		case v.Quiet:
			return out
		case v.Raw:
			return append(out, r.payload...)
		}
		v.written = r.time
		v.clean.write(r.payload, func(line []byte) { out = v.output(out, line) })
	case kindFinish:
		return v.end(out)
	}
	return out
}

// end renders what is left of the app's last line.
func (v *view) end(out []byte) []byte {
	v.clean.end(func(line []byte) { out = v.output(out, line) })
	return out
}

func (v *view) say(out []byte, r record) []byte {
	if v.Raw {
		return out
	}
	v.clean.breakLine(func(line []byte) { out = v.output(out, line) })
	if v.JSON {
		return appendJSON(out, r.time, "daeploy", r.payload)
	}
	return append(append(out, r.payload...), '\n')
}

func (v *view) output(out, line []byte) []byte {
	if v.JSON {
		return appendJSON(out, v.written, "app", line)
	}
	if len(line) == 0 {
		out = append(out, strings.TrimRight(gutter, " ")...)
	} else {
		out = append(append(out, gutter...), line...)
	}
	return append(out, '\n')
}

// appendJSON writes one object of `logs --json`. The time of a line of the
// app's is that of its end.
func appendJSON(out []byte, at time.Time, stream string, text []byte) []byte {
	b, err := json.Marshal(struct {
		Time   time.Time `json:"time"`
		Stream string    `json:"stream"`
		Text   string    `json:"text"`
	}{at, stream, string(text)})
	if err != nil {
		return out // not reached: a record's nanoseconds end in the year 2262
	}
	return append(append(out, b...), '\n')
}

// heartbeat is the line that says in a silence that all is well.
func (v *view) heartbeat(silence time.Duration) string {
	doing := "working"
	if v.step != "" {
		doing = "in " + v.step
	}
	return fmt.Sprintf("... still %s, %ds\n", doing, int(silence.Round(time.Second).Seconds()))
}
