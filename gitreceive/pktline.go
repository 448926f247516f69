package gitreceive

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/daeploy/daeploy"
)

// errPkt is the cause of every error about a malformed packet line.
var errPkt = errors.New("malformed packet line")

// readPkt reads one packet line of at most most bytes of content. flush is
// true for "0000". The length is checked before anything is allocated (F40).
func readPkt(r io.Reader, most int) (line []byte, flush bool, err error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, false, err
	}
	n := 0
	for _, c := range head {
		v := hexValue(c)
		if v < 0 {
			return nil, false, fmt.Errorf("%w: length %+q", errPkt, head[:])
		}
		n = n<<4 | v
	}
	switch {
	case n == 0:
		return nil, true, nil
	case n < 4:
		return nil, false, fmt.Errorf("%w: length %d", errPkt, n)
	case n-4 > most:
		return nil, false, &daeploy.Error{
			Kind: daeploy.Invalid, Code: "line_too_long",
			Message: fmt.Sprintf("a line of the push has %d bytes; the limit is %d", n-4, most), Hint: "push with git, and refs with shorter names", Err: errPkt,
		}
	}
	line = make([]byte, n-4)
	if _, err := io.ReadFull(r, line); err != nil {
		return nil, false, fmt.Errorf("%w: cut off: %w", errPkt, err)
	}
	return line, false, nil
}

func hexValue(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// pkt frames one line.
func pkt(line string) string { return fmt.Sprintf("%04x%s", len(line)+4, line) }

// flushPkt ends a section.
const flushPkt = "0000"

// parseCommand reads "<old> <new> <ref>", without a line feed at its end.
func parseCommand(line string) (daeploy.RefUpdate, error) {
	fields := strings.SplitN(line, " ", 3)
	if len(fields) != 3 || fields[2] == "" {
		return daeploy.RefUpdate{}, fmt.Errorf("%w: %+q is no ref command", errPkt, plain(line, 200))
	}
	before, err := daeploy.ParseRevision(fields[0])
	if err != nil {
		return daeploy.RefUpdate{}, fmt.Errorf("%w: %w", errPkt, err)
	}
	after, err := daeploy.ParseRevision(fields[1])
	if err != nil {
		return daeploy.RefUpdate{}, fmt.Errorf("%w: %w", errPkt, err)
	}
	return daeploy.RefUpdate{Ref: fields[2], Old: before, New: after}, nil
}
