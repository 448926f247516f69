package buildpipeline_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/buildpipeline"
)

// S101, S141: what is wrong with a runtime image has the runtime_ code of the
// same ending, and speaks of a runtime image.
func TestRuntimeCodes(t *testing.T) {
	for builder, runtime := range map[string]string{
		"builder_missing": "runtime_missing", "builder_denied": "runtime_denied", "builder_unreachable": "runtime_unreachable",
		"builder_platform": "runtime_platform", "builder_invalid": "runtime_invalid", "builder_onbuild": "runtime_onbuild",
		"user_unknown": "user_unknown",
	} {
		cause := errors.New("the cause")
		err := buildpipeline.AsRuntime(fmt.Errorf("get it: %w", &daeploy.Error{
			Kind: daeploy.BuildFailed, Code: builder, Message: "builder image x was not found", Hint: "look again", Err: cause,
		}))
		fault, ok := errors.AsType[*daeploy.Error](err)
		if !ok || fault.Code != runtime || !errors.Is(err, cause) {
			t.Errorf("%s becomes %v, want %s with its cause", builder, err, runtime)
			continue
		}
		if builder != runtime && (strings.Contains(fault.Message, "builder") || !strings.Contains(fault.Hint, "[runtime] image")) {
			t.Errorf("%s: %q, %q", runtime, fault.Message, fault.Hint)
		}
	}
	if err := buildpipeline.AsRuntime(context.Canceled); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancel becomes %v", err)
	}
}

// S141: a fault without words is commit_failed; one that has a code keeps it,
// and a cancel is no fault.
func TestCommitFailed(t *testing.T) {
	cause := errors.New("no space left on device")
	fault, ok := errors.AsType[*daeploy.Error](buildpipeline.CommitFailed(cause))
	if !ok || fault.Code != "commit_failed" || fault.Kind != daeploy.BuildFailed || !errors.Is(fault, cause) || fault.Hint == "" {
		t.Errorf("%v becomes %+v", cause, fault)
	}
	full, ok := errors.AsType[*daeploy.Error](buildpipeline.CommitFailed(daeploy.DiskFull(cause)))
	if !ok || full.Code != "commit_failed" || full.Kind != daeploy.BuildFailed || full.Message != "the image could not be stored: a disk of this server is full" || !errors.Is(full, cause) {
		t.Errorf("a full disk becomes %+v", full)
	}
	own := daeploy.Errorf(daeploy.BuildFailed, "labels_too_large", "too large")
	for _, err := range []error{own, context.Canceled} {
		if got := buildpipeline.CommitFailed(err); !errors.Is(got, err) || daeploy.KindOf(got) != daeploy.KindOf(err) {
			t.Errorf("%v becomes %v", err, got)
		}
	}
}

// F103, F105: files of a build that are gone interrupt it, and it is said who lost them;
// a containerd that is away has lost nothing.
func TestLost(t *testing.T) {
	for code, want := range map[string]string{
		"process_vanished": "the build's container is gone: the host was restarted, or somebody removed it",
		"rootfs_lost":      "containerd was ended while it made the image, and has lost the build's files",
	} {
		cause := daeploy.Errorf(daeploy.NotFound, code, "gone")
		fault, ok := errors.AsType[*daeploy.Error](buildpipeline.Lost(cause))
		if !ok || fault.Code != "interrupted" || fault.Message != want || fault.Hint == "" || !errors.Is(fault, cause) {
			t.Errorf("%v becomes %+v, want %q", cause, fault, want)
		}
	}
	away := daeploy.Errorf(daeploy.Unavailable, "containerd_unavailable", "away")
	if got := buildpipeline.Lost(away); !errors.Is(got, away) || daeploy.KindOf(got) != daeploy.Unavailable {
		t.Errorf("%v becomes %v", away, got)
	}
}
