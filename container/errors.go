package container

import (
	"context"
	"errors"
	"io"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"

	"github.com/daeploy/daeploy"
)

var errSilent = errors.New("no answer in time")

// away turns an error that says "containerd does not answer" into one of kind
// Unavailable, and one that says that containerd has no room into disk_full; every
// other error passes unchanged.
func away(err error) error {
	if err == nil || errors.As(err, new(*daeploy.Error)) {
		return err
	}
	native := errgrpc.ToNative(err)
	if errdefs.IsUnavailable(err) || errdefs.IsUnavailable(native) {
		return silent(err)
	}
	// What containerd says has no number. A cgroup without room is another matter.
	if text := err.Error(); strings.Contains(text, syscall.ENOSPC.Error()) && !strings.Contains(text, "cgroup") {
		return daeploy.DiskFull(err)
	}
	return err
}

// cutOff is away for a stream that we write. A stream that has broken says no more than
// io.EOF to who sends the next message (grpc.ClientStream, SendMsg); the containerd
// client does not ask it why, and passes on the word alone.
func cutOff(err error) error {
	if err != nil && strings.HasSuffix(err.Error(), ": "+io.EOF.Error()) {
		return silent(err)
	}
	return away(err)
}

func silent(err error) error {
	return &daeploy.Error{
		Kind: daeploy.Unavailable, Code: "containerd_unavailable", Message: "containerd does not answer",
		Hint: "systemctl restart containerd", Err: err,
	}
}

// cleanup gives a ctx for what must be done although ctx may have ended.
func cleanup(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
}
