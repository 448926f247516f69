package daeploy

import (
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
)

// MaxUserFile is how many bytes of an image's passwd or group file are read.
const MaxUserFile = 1 << 20

// maxID is the highest user or group id: above it ids turn negative, and in
// the end into root, on their way through other programs (CVE-2024-40635).
const maxID = 1<<31 - 1

// maxGroups is how many supplementary groups a user may have. The kernel's own limit
// (NGROUPS_MAX, 65536) is for directories of a whole company, not for an image.
const maxGroups = 1000

// User is who a process in a container runs as.
type User struct {
	UID, GID uint32
	Groups   []uint32 // supplementary, in the order of the group file
	Home     string   // "/" if the image does not say
}

// LookupUser finds the user that an image config or label names, "user" or
// "user:group", each a name or a number, by the image's own files (S34, S133).
// Nobody named is uid 0. A number needs no line; a name does. Lines that are
// malformed are nobody's, and a home that is no path is "/". A named group comes without
// supplementary ones.
func LookupUser(spec string, passwd, group []byte) (User, error) {
	if len(passwd) > MaxUserFile || len(group) > MaxUserFile {
		return User{}, fmt.Errorf("/etc/passwd and /etc/group may have %d bytes, not more", MaxUserFile)
	}
	who, whichGroup, hasGroup := strings.Cut(spec, ":")
	if who == "" {
		who = "0"
	}
	user, name, err := findUser(who, passwd)
	if err != nil {
		return User{}, err
	}
	if hasGroup && whichGroup != "" {
		user.GID, err = findGroup(whichGroup, group)
		return user, err
	}
	for fields := range colonLines(group, 4) {
		gid, ok := parseID(fields[2])
		if !ok || name == "" || !slices.Contains(strings.Split(fields[3], ","), name) || slices.Contains(user.Groups, gid) {
			continue
		}
		if len(user.Groups) == maxGroups {
			return User{}, fmt.Errorf("user %q is in more than %d groups", clip(name), maxGroups)
		}
		user.Groups = append(user.Groups, gid)
	}
	return user, nil
}

// findUser also gives the name on the user's line, "" if there is none.
func findUser(who string, passwd []byte) (User, string, error) {
	id, numeric := parseID(who)
	if !numeric && isNumber(who) {
		return User{}, "", fmt.Errorf("user id %s is above %d", clip(who), maxID)
	}
	for fields := range colonLines(passwd, 7) {
		uid, uidOK := parseID(fields[2])
		gid, gidOK := parseID(fields[3])
		if !uidOK || !gidOK || numeric && uid != id || !numeric && fields[0] != who {
			continue
		}
		home := fields[5]
		if !strings.HasPrefix(home, "/") || CheckImagePath(home) != nil {
			home = "/"
		}
		return User{UID: uid, GID: gid, Home: home}, fields[0], nil
	}
	if !numeric {
		return User{}, "", fmt.Errorf("there is no user %q", clip(who))
	}
	return User{UID: id, Home: "/"}, "", nil
}

func findGroup(which string, group []byte) (uint32, error) {
	if id, ok := parseID(which); ok {
		return id, nil
	}
	if isNumber(which) {
		return 0, fmt.Errorf("group id %s is above %d", clip(which), maxID)
	}
	for fields := range colonLines(group, 4) {
		if id, ok := parseID(fields[2]); ok && fields[0] == which {
			return id, nil
		}
	}
	return 0, fmt.Errorf("there is no group %q", clip(which))
}

// colonLines yields the lines that have at least n fields; comments and the
// +/- lines of NIS are none.
func colonLines(file []byte, n int) iter.Seq[[]string] {
	return func(yield func([]string) bool) {
		for line := range strings.Lines(string(file)) {
			fields := strings.Split(strings.TrimRight(line, "\r\n"), ":")
			if len(fields) < n || fields[0] == "" || strings.ContainsAny(fields[0][:1], "#+-") {
				continue
			}
			if !yield(fields) {
				return
			}
		}
	}
}

func isNumber(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

func parseID(s string) (uint32, bool) {
	if !isNumber(s) {
		return 0, false
	}
	id, err := strconv.ParseUint(s, 10, 31)
	return uint32(id), err == nil
}
