package daeploy

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"
)

// Image is an image in the local store, ready to start from.
type Image struct {
	Ref    ImageRef `json:"image"`
	Digest string   `json:"digest"` // of the manifest for this host's platform, "sha256:..."
	Size   int64    `json:"size"`   // bytes of the layers as stored
	Own    int64    `json:"-"`      // bytes of the topmost layer, which is what a build has added
	Pulled bool     `json:"-"`      // fetched from its registry just now, not found
	Config []byte   `json:"-"`      // the OCI image config, JSON as stored (S115: edit it as JSON)

	Created time.Time `json:"created,omitzero"` // when the local record was written
}

// PullPolicy says when a registry is asked (S26).
type PullPolicy string

// The pull policies.
const (
	PullIfMissing PullPolicy = "if-not-present"
	PullAlways    PullPolicy = "always"
	PullNever     PullPolicy = "never"
)

// Progress of a pull, in bytes; Total is 0 until it is known.
type Progress struct {
	Done, Total int64
}

// Owner is who owns a file in a rootfs, as numbers.
type Owner struct {
	UID, GID uint32
}

// FileInfo describes one path of a rootfs.
type FileInfo struct {
	Mode  fs.FileMode // type and permission bits
	Owner Owner
	Size  int64
}

// File says how a file, link or directory is to be written into a rootfs.
type File struct {
	Mode  fs.FileMode // permission bits; the type is the method's
	Owner Owner
	Time  time.Time // modification time; zero = now
}

// Artifact is what assemble leaves and the runtime image gets: From in the
// builder's rootfs, To in the other one, both absolute and clean (S105).
type Artifact struct {
	From, To string
}

// Carried tells how much was copied from one rootfs into another.
type Carried struct {
	Bytes   int64 // lengths of the regular files
	Entries int64
	Skipped int64 // devices, fifos and sockets, which are not carried
}

// Process is a script to run in a build's rootfs, or a command in an image.
type Process struct {
	Args     []string
	Env      []string // NAME=value, complete
	Dir      string   // an existing directory of the rootfs
	User     Owner
	Groups   []uint32 // supplementary
	Hostname string
	Network  bool
	Limits   Limits
	CABundle string // host path of PEM certificates, mounted at /run/daeploy/ca.pem (S77); "" for none
	Cache    Cache

	// Secrets are files below /run/secrets, by name: mode 0400, User's, on a tmpfs
	// that never is on a disk (S74). Run gives none.
	Secrets map[string][]byte
}

// Cache asks for the app's package cache: a directory that outlives its builds
// and reaches no image and no other app.
type Cache struct {
	// Path is where it is mounted, "" for none: absolute and clean. What is missing
	// of it is made for the process's user, and taken away again (Output.Cache).
	Path  string
	For   string // a cache that was made for another value, or another user, is emptied
	Clean bool   // empty it in any case
}

// Limits bound one build (S136, faults.md section 2). Zero means none, but for
// Grace.
type Limits struct {
	Memory int64         // bytes; swap is not added
	CPUs   float64       // quota, in cores
	PIDs   int64         // processes and threads
	Disk   int64         // bytes the rootfs may grow by
	Inodes int64         // entries the rootfs may grow by
	Grace  time.Duration // between SIGTERM and the end of the whole container
}

// Bounds of what an image may say (F84).
const (
	MaxImageEnv      = 1000        // variables
	MaxImageVariable = 128<<10 - 1 // bytes of one, NAME=value: the kernel takes no more (MAX_ARG_STRLEN)
	MaxImageDepth    = 128         // directories of a path: whatever is done with one walks all of it
	maxPath, maxName = 4095, 255   // bytes; those of the kernel
)

// CheckImagePath tells of a clean path that an image names what is wrong with it, in
// words that follow those for what the path is; nil for nothing.
func CheckImagePath(name string) error {
	switch depth := strings.Count(name, "/"); {
	case strings.ContainsRune(name, 0):
		return errors.New("has a NUL character")
	case depth > MaxImageDepth:
		return fmt.Errorf("is %d directories deep; at most %d are allowed", depth, MaxImageDepth)
	case len(name) > maxPath:
		return fmt.Errorf("has %d bytes; at most %d are allowed", len(name), maxPath)
	}
	for word := range strings.SplitSeq(name, "/") {
		if len(word) > maxName {
			return fmt.Errorf("has a name of %d bytes; at most %d are allowed", len(word), maxName)
		}
	}
	return nil
}

// Exit tells how a script ended.
type Exit struct {
	Code   int    // 128 + n for signal n
	OOM    bool   // the container's memory limit was hit; from the counters, never from Code
	PIDs   bool   // it was refused a process, having as many as it may; from the counters as well
	Limit  string // what ended the script: "disk" if the rootfs grew beyond its limit, "depth" if it is nested too deep
	Detail string // numbers for the message, such as "10.2 GiB of 10 GiB"
}

// Output says what image a build's rootfs becomes.
type Output struct {
	Name        ImageRef
	Base        Image  // without its Config, after a restart
	Config      []byte // the image config without the new layer: rootfs and history are the base's
	CreatedBy   string // history entry
	Created     time.Time
	Annotations map[string]string // of the manifest (S119)
	Cache       string            // Cache.Path of the process: no mount point that was made for it stays (S41)
}

// ArtifactLimits bound what an earlier build may hand on (S97).
type ArtifactLimits struct {
	Bytes   int64 // sum of the lengths of the files
	Entries int
}

// Restored tells what came of a stream of artifacts.
type Restored struct {
	Files   int   // that were written; directories don't count
	Bytes   int64 // sum of their lengths
	Skipped int   // entries that are neither file, directory nor link (S95)
}

// Layer tells what a commit wrote.
type Layer struct {
	Bytes   int64
	Entries int
}

// LogView says how a log is to be shown.
type LogView struct {
	Follow    bool          // go on until the build is final
	Raw       bool          // only the app's output, byte for byte
	JSON      bool          // one object per line: time, stream ("daeploy" or "app"), text
	Quiet     bool          // leave the app's output out
	Heartbeat time.Duration // in silence of this length, one line that says so; 0 = never
}
