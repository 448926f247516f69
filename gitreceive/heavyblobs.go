package gitreceive

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/daeploy/daeploy"
)

// heavyReader is a git that reads blobs, with the memory and the time of one that
// takes a push. It keeps bases of deltas from one blob to the next.
type heavyReader struct {
	*child
	objects *objects
	limits  Limits
	answers *bufio.Reader
	ended   func() error // how git ended; it waits for that
	said    *tailBuffer  // to be read after ended
}

// heavyBlobs reads the blobs that are too heavy for the daemon, as readBlobs does,
// one after the other by one git.
func (r *Repositories) heavyBlobs(ctx context.Context, o *objects, dir string, ids []daeploy.Revision, heavy []packed, put func(i int, r io.Reader) error) error {
	if len(heavy) == 0 {
		return nil
	}
	h, err := r.startHeavy(o, dir)
	if err != nil {
		return err
	}
	defer h.close()
	defer context.AfterFunc(ctx, h.kill)()
	for _, at := range heavy {
		err := h.blob(ids[at.index], func(r io.Reader) error { return put(at.index, r) })
		if err != nil && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *Repositories) startHeavy(o *objects, dir string) (*heavyReader, error) {
	limits := r.limits()
	// Else a base of 100 MiB would be unpacked for each of its deltas.
	env := environ(setting{"core.deltaBaseCacheLimit", strconv.FormatInt(limits.Memory/4, 10)})
	// A pusher can have refs that put another object in an object's place.
	env = append(env, "GIT_NO_REPLACE_OBJECTS=1")
	c, err := startChild(r.git, limits, env, nil, "--git-dir="+dir, "cat-file", "--batch")
	if err != nil {
		return nil, err
	}
	h := &heavyReader{child: c, objects: o, limits: limits, answers: bufio.NewReaderSize(c.out, 64<<10), said: &tailBuffer{most: 4 << 10}}
	var pump sync.WaitGroup
	pump.Go(func() { _, _ = io.Copy(h.said, c.err) }) // ends with git
	h.ended = sync.OnceValue(func() error {
		err := c.wait()
		pump.Wait()
		return err
	})
	return h, nil
}

func (h *heavyReader) close() {
	h.kill()
	_ = h.ended() // it was killed
	closeAll([]io.Closer{h.in, h.out, h.err})
}

// blob asks for one blob and hands it to put, which need not read all of it.
func (h *heavyReader) blob(id daeploy.Revision, put func(io.Reader) error) error {
	if _, err := h.in.WriteString(string(id) + "\n"); err != nil {
		return h.fault(id, err)
	}
	line, err := h.answers.ReadString('\n')
	if err != nil {
		return h.fault(id, err)
	}
	rest, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), string(id)+" blob ")
	size, err := strconv.ParseInt(rest, 10, 64)
	if !ok || err != nil {
		return h.objects.damage(id, fmt.Errorf("git says %q", plain(line, 200)))
	}
	content := &io.LimitedReader{R: h.answers, N: size}
	whole := &wholeReader{r: content, left: size, fault: func(err error) error { return h.fault(id, err) }}
	if err := put(whole); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, whole); err != nil {
		return err
	}
	if _, err := h.answers.Discard(1); err != nil { // the line feed
		return h.fault(id, err)
	}
	return nil
}

// fault tells why git gives no more of a blob: it has ended, at a limit or because
// the pack is damaged.
func (h *heavyReader) fault(id daeploy.Revision, err error) error {
	ended := h.ended()
	spent := h.cmd.ProcessState.UserTime() + h.cmd.ProcessState.SystemTime()
	said := h.said.String()
	switch {
	case strings.Contains(said, "ut of memory"), strings.Contains(said, "annot allocate memory"):
		return treeLimit("file %s is stored as a change to a large one: to read it takes more than %d MiB of memory, the limit", id.Short(), h.limits.Memory>>20)
	case !h.cmd.ProcessState.Exited() && spent > h.limits.CPU-time.Second:
		return treeLimit("files of the commit are stored as changes to large ones: to read them takes more than %s of CPU time, the limit", h.limits.CPU)
	case !h.cmd.ProcessState.Exited():
		return &daeploy.Error{
			Kind: daeploy.Unavailable, Code: "git_away", Message: "git was ended while it read the source",
			Hint: "ask the operator of this host, or try again later", Err: ended,
		}
	}
	return h.objects.damage(id, errors.Join(err, ended, errors.New(plain(said, 4<<10))))
}
