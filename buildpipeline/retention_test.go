package buildpipeline_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/buildpipeline"
)

// TestKeep: what goes beyond which limit. The past has eight builds, newest
// first in words; n days ago each: 8 waits, 7 runs, 6 failed, 5 to 3 succeeded,
// 2 was canceled, 1 succeeded. All logs have 10 bytes, images of n 100 × n.
func TestKeep(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var all []daeploy.Build
	logs, images := map[uint64]int64{}, map[uint64]int64{}
	for i, status := range []daeploy.Status{
		daeploy.StatusQueued, daeploy.StatusRunning, daeploy.StatusFailed, daeploy.StatusSucceeded,
		daeploy.StatusSucceeded, daeploy.StatusSucceeded, daeploy.StatusCanceled, daeploy.StatusSucceeded,
	} {
		n := uint64(8 - i)
		b := daeploy.Build{ID: build("blog", n), Status: status}
		if status.Final() {
			b.Ended = now.Add(-time.Duration(i) * 24 * time.Hour)
		}
		if status == daeploy.StatusSucceeded {
			b.Image, b.ImageDigest = b.ID.Image(), fmt.Sprintf("sha256:%d", n)
		}
		all = append(all, b)
		logs[n], images[n] = 10, int64(100*n)
	}
	for name, test := range map[string]struct {
		keep  buildpipeline.Keep
		stays []uint64
		want  string // builds, then images of others
	}{
		"no limit":             {buildpipeline.Keep{}, nil, "/"},
		"all fit":              {buildpipeline.Keep{Builds: 6, Images: 4, LogBytes: 60, ImageBytes: 1300}, nil, "/"},
		"builds":               {buildpipeline.Keep{Builds: 3}, nil, "3 2 1/"},
		"builds, one in use":   {buildpipeline.Keep{Builds: 3}, []uint64{3}, "2 1/"},
		"builds and images":    {buildpipeline.Keep{Builds: 4, Images: 1}, nil, "2 1/4 3"},
		"images":               {buildpipeline.Keep{Images: 2}, nil, "/3 1"},
		"images, one in use":   {buildpipeline.Keep{Images: 2}, []uint64{1}, "/3"},
		"age":                  {buildpipeline.Keep{Age: 5 * 24 * time.Hour}, nil, "2 1/"},
		"age of images":        {buildpipeline.Keep{ImageAge: 4 * 24 * time.Hour}, nil, "/3 1"},
		"bytes of logs":        {buildpipeline.Keep{LogBytes: 35}, nil, "3 2 1/"},
		"bytes of images":      {buildpipeline.Keep{ImageBytes: 950}, nil, "/3 1"},
		"nothing fits":         {buildpipeline.Keep{Builds: 1, LogBytes: 1, ImageBytes: 1}, []uint64{6, 5}, "4 3 2 1/"},
		"the last image stays": {buildpipeline.Keep{ImageBytes: 1, ImageAge: time.Second}, []uint64{5}, "/4 3 1"},
	} {
		t.Run(name, func(t *testing.T) {
			stays := func(b *daeploy.Build) bool { return slices.Contains(test.stays, b.ID.Number) }
			builds, imageless := test.keep.Over(all, stays, logs, images, now)
			if diff := cmp.Diff(test.want, numbers(builds)+"/"+numbers(imageless)); diff != "" {
				t.Errorf("what goes (-want +got):\n%s", diff)
			}
		})
	}
}

// An image that answered several builds counts once, and is one on the disk.
func TestKeepOneImageOfMany(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var all []daeploy.Build
	weights := map[uint64]int64{}
	for n := uint64(6); n > 0; n-- {
		b := daeploy.Build{ID: build("blog", n), Status: daeploy.StatusSucceeded, Ended: now, ImageDigest: "sha256:same"}
		if b.Image = b.ID.Image(); n < 3 {
			b.ImageDigest = fmt.Sprintf("sha256:%d", n)
		}
		all, weights[n] = append(all, b), 100
	}
	none := func(*daeploy.Build) bool { return false }
	for want, keep := range map[string]buildpipeline.Keep{"": {Images: 3, ImageBytes: 300}, "1": {Images: 2}, "2 1": {ImageBytes: 199}} {
		if _, images := keep.Over(all, none, weights, weights, now); numbers(images) != want {
			t.Errorf("of four builds with one image, and two with others, %+v takes %q; want %q", keep, numbers(images), want)
		}
	}
}

func numbers(builds []daeploy.Build) string {
	var all []string
	for _, b := range builds {
		all = append(all, fmt.Sprint(b.ID.Number))
	}
	return strings.Join(all, " ")
}
