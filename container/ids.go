package container

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/daeploy/daeploy"
)

// IDs are the ids of this host that the users and groups of containers are: 0 in a
// container is First, 1 the next one, and Count of them. The zero value is none:
// the ids of containers are the host's.
type IDs struct{ First, Count uint32 }

// DefaultIDs end below those that systemd has for images, and begin above what
// SSSD and FreeIPA give to people. The daemon does not look whether anybody else
// has them.
var DefaultIDs = IDs{First: 0x78000000, Count: 0x7FE0000}

const (
	leastIDs  = 1 << 16 // nobody is 65534 everywhere
	lowestIDs = 1 << 16 // below are the system's and people's
	beyondIDs = 1 << 31 // some programs take more for a negative number
)

// ParseIDs reads "FIRST:COUNT", as in /etc/subuid.
func ParseIDs(text string) (IDs, error) {
	first, count, ok := strings.Cut(text, ":")
	var n [2]uint64
	for i, word := range []string{first, count} {
		var err error
		n[i], err = strconv.ParseUint(word, 10, 32)
		ok = ok && err == nil
	}
	if !ok {
		return IDs{}, fmt.Errorf("%q is not FIRST:COUNT, as in %q", text, DefaultIDs)
	}
	ids := IDs{First: uint32(n[0]), Count: uint32(n[1])}
	return ids, ids.check()
}

func (i IDs) String() string { return fmt.Sprintf("%d:%d", i.First, i.Count) }

func (i IDs) any() bool { return i.Count > 0 }

func (i IDs) check() error {
	switch {
	case i.First < lowestIDs:
		return fmt.Errorf("%v begins below %d, among the users of this host", i, lowestIDs)
	case i.Count < leastIDs:
		return fmt.Errorf("%v are less than %d ids", i, leastIDs)
	case uint64(i.First)+uint64(i.Count) > beyondIDs:
		return fmt.Errorf("%v ends above %d", i, beyondIDs-1)
	}
	return nil
}

// host gives what an owner in the container is on the host.
func (i IDs) host(o daeploy.Owner) daeploy.Owner {
	return daeploy.Owner{UID: i.First + o.UID, GID: i.First + o.GID}
}

// hold tells whether the container can have a user with these groups.
func (i IDs) hold(user daeploy.Owner, groups []uint32) error {
	for _, id := range append([]uint32{user.UID, user.GID}, groups...) {
		if i.any() && id >= i.Count {
			return &daeploy.Error{
				Kind: daeploy.BuildFailed, Code: "user_unknown", Message: fmt.Sprintf("user or group %d is none of the %d that a container has here", id, i.Count),
				Hint: "use an image with a lower number; the operator can set user_ids",
			}
		}
	}
	return nil
}

// mappings are those of the container's user namespace; nil for none.
func (i IDs) mappings() []specs.LinuxIDMapping {
	if !i.any() {
		return nil
	}
	return []specs.LinuxIDMapping{{HostID: i.First, Size: i.Count}}
}

// streams lets the container's root own the pipes of its output, so that programs
// can open /dev/stdout. Without ids it gives nil.
func (i IDs) streams() any {
	if !i.any() {
		return nil
	}
	return &options.Options{IoUid: i.First, IoGid: i.First}
}

// maxMountData is what fits the one page that the kernel takes of a mount's
// options, less what containerd leaves free of it.
const maxMountData = 4096 - 512

// mounts completes how a rootfs is mounted: ids are mapped where the layers are
// read and written. So every owner on the disk is the one that the container sees,
// whether containers have ids of their own or not.
//
// The shim first mounts the directory of all snapshots, with its ids mapped, at the
// place of the rootfs, and then over it the overlay, whose layers are the ones in
// that mount. The shim works in the bundle, from where that is "rootfs".
//
// The overlay's own acts, such as whiteouts, are the host's root's, who must have
// an id on the disk too: the one after the container's.
func (i IDs) mounts(mounts []mount.Mount) ([]mount.Mount, error) {
	if !i.any() {
		return mounts, nil
	}
	if len(mounts) != 1 {
		return nil, fmt.Errorf("%d mounts for one rootfs", len(mounts))
	}
	m := mounts[0]
	ids := fmt.Sprintf("0:%d:%d,%d:0:1", i.First, i.Count, i.Count)
	mapped := []string{"uidmap=" + ids, "gidmap=" + ids}
	if m.Type == "bind" { // there is no layer below
		m.Options = slices.Concat(m.Options, mapped)
		return []mount.Mount{m}, nil
	}
	dirs, err := layersOf(mounts)
	if err != nil {
		return nil, err
	}
	all := filepath.Dir(filepath.Dir(dirs.upper)) // DIR/17/fs
	if m.Options, err = moved(m.Options, all, "rootfs"); err != nil {
		return nil, err
	}
	if len(strings.Join(m.Options, ",")) > maxMountData {
		return nil, &daeploy.Error{
			Kind: daeploy.BuildFailed, Code: "builder_invalid", Message: fmt.Sprintf("the image has %d layers, more than can be mounted here", len(dirs.lowers)),
			Hint: "use an image of less than 190 layers",
		}
	}
	bind := mount.Mount{Type: "bind", Source: all, Options: append([]string{"bind", "rw"}, mapped...)}
	return []mount.Mount{bind, m}, nil
}

// moved gives an overlay's options with other paths to its directories, which are
// all below from.
func moved(options []string, from, to string) ([]string, error) {
	options = slices.Clone(options)
	for i, option := range options {
		name, value, ok := strings.Cut(option, "=")
		if !ok || !strings.HasPrefix(value, "/") {
			continue
		}
		dirs := strings.Split(value, ":")
		for j, dir := range dirs {
			rest, ok := strings.CutPrefix(dir, from+"/")
			if !ok {
				return nil, fmt.Errorf("layer %s is not below %s", dir, from)
			}
			dirs[j] = to + "/" + rest
		}
		options[i] = name + "=" + strings.Join(dirs, ":")
	}
	return options, nil
}
