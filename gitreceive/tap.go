package gitreceive

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/daeploy/daeploy"
)

// maxShallow bounds the lines by which a shallow clone tells its edge.
const maxShallow = 10_000

// tap copies what a client sends to git and reads the beginning in passing:
// the ref commands, the push options, the header of the pack. What is over a
// limit never gets to git (F11, F22).
type tap struct {
	limits Limits

	mu       sync.Mutex
	commands []daeploy.RefUpdate
}

// seen are the commands that have passed so far.
func (t *tap) seen() []daeploy.RefUpdate {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.commands
}

// copy ends with nil when the client has sent all. An error of a kind is the
// client's fault and says so; other errors are broken connections.
func (t *tap) copy(git io.Writer, client io.Reader) error {
	hasOptions, err := t.copyCommands(git, client)
	if err != nil {
		return err
	}
	if hasOptions {
		if err := t.copyOptions(git, client); err != nil {
			return err
		}
	}
	if t.wantsPack() {
		if err := t.copyPackHeader(git, client); err != nil {
			return err
		}
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{git}, struct{ io.Reader }{client}, make([]byte, 64<<10))
	return err
}

func (t *tap) copyCommands(git io.Writer, client io.Reader) (hasOptions bool, err error) {
	names := map[string]bool{}
	shallow := 0
	for first := true; ; {
		// Two ids, the name, and on the first line the capabilities.
		line, flush, err := readPkt(client, 2*64+2+t.limits.RefLen+1024)
		if err != nil {
			return false, err
		}
		if flush {
			_, err := io.WriteString(git, flushPkt)
			return hasOptions, err
		}
		if strings.HasPrefix(string(line), "shallow ") {
			if shallow++; shallow > maxShallow {
				return false, overLimit("shallow_limit", "", "this clone has more than %d shallow edges", maxShallow)
			}
		} else {
			text, caps, more := strings.Cut(string(line), "\x00")
			if !more {
				text = strings.TrimSuffix(text, "\n")
			}
			if first {
				hasOptions = slices.Contains(strings.Fields(caps), "push-options")
			} else if more {
				// git would read capabilities here too; no client sends them.
				return false, overLimit("command_invalid", "", "a command holds a NUL character")
			}
			first = false
			if err := t.command(text, names); err != nil {
				return false, err
			}
		}
		if _, err := io.WriteString(git, pkt(string(line))); err != nil {
			return false, err
		}
	}
}

func (t *tap) command(text string, names map[string]bool) error {
	c, err := parseCommand(text)
	switch {
	case err != nil:
		return &daeploy.Error{Kind: daeploy.Invalid, Code: "push_invalid", Message: "the push is malformed", Hint: "push with git", Err: err}
	case strings.ContainsAny(c.Ref, " \n"):
		// git's answers end a name at a blank, and its lines at a line feed: the hook
		// would be asked about one ref, and the client be told of another.
		return checkRef(c.Ref, t.limits.RefLen)
	case len(c.Ref) > t.limits.RefLen:
		return overLimit("ref_invalid", "", "a ref name has %d bytes; the limit is %d", len(c.Ref), t.limits.RefLen)
	case names[c.Ref]:
		return &daeploy.Error{
			Kind: daeploy.Invalid, Code: "ref_twice", Message: fmt.Sprintf("the push names %s twice", plain(c.Ref, 255)),
			Hint: "name each ref once",
		}
	case len(names) == t.limits.Commands:
		return overLimit("commands_limit", "receive.refs_per_push", "the push has more than %d refs", t.limits.Commands)
	}
	names[c.Ref] = true
	t.mu.Lock()
	t.commands = append(t.commands, c)
	t.mu.Unlock()
	return nil
}

func (t *tap) copyOptions(git io.Writer, client io.Reader) error {
	for n := 0; ; n++ {
		line, flush, err := readPkt(client, daeploy.MaxPushOptionLen+1)
		if err != nil {
			return err
		}
		if flush {
			_, err := io.WriteString(git, flushPkt)
			return err
		}
		if n == daeploy.MaxPushOptions {
			return overLimit("push_option_invalid", "", "the push has more than %d push options", daeploy.MaxPushOptions)
		}
		if bytes.IndexByte(line, 0) >= 0 {
			// git would take what stands before it for the whole.
			return &daeploy.Error{
				Kind: daeploy.Invalid, Code: "push_option_invalid", Message: "a push option holds a NUL character", Hint: "leave it out",
			}
		}
		if _, err := io.WriteString(git, pkt(string(line))); err != nil {
			return err
		}
	}
}

// wantsPack tells whether a pack follows: only deletions have none (F17), and
// neither has an empty push.
func (t *tap) wantsPack() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.commands {
		if c.New != "" {
			return true
		}
	}
	return false
}

func (t *tap) copyPackHeader(git io.Writer, client io.Reader) error {
	var head [12]byte
	if _, err := io.ReadFull(client, head[:]); err != nil {
		return err
	}
	version, objects := binary.BigEndian.Uint32(head[4:]), binary.BigEndian.Uint32(head[8:])
	switch {
	case string(head[:4]) != "PACK" || version != 2 && version != 3:
		return &daeploy.Error{
			Kind: daeploy.Invalid, Code: "pack_invalid", Message: "the push does not bring a pack of version 2 or 3",
			Hint: "push with a current git",
		}
	case int64(objects) > t.limits.Objects:
		return overLimit("objects_limit", "receive.objects", "the push brings %d objects; the limit is %d", objects, t.limits.Objects)
	}
	_, err := git.Write(head[:])
	return err
}

// overLimit is for what passes a limit; setting is its key in the configuration,
// if it has one.
func overLimit(code, setting, format string, args ...any) error {
	e := &daeploy.Error{
		Kind: daeploy.Invalid, Code: code, Message: fmt.Sprintf(format, args...), Hint: "push in smaller parts",
	}
	if setting != "" {
		e.Hint += raise(setting)
	}
	return e
}

// raise ends a hint about a limit of the operator's.
func raise(setting string) string { return ", or ask the operator of this host to raise " + setting }
