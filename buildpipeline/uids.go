package buildpipeline

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/daeploy/daeploy"
)

// UIDRanges are the numeric users that builds may run as (S131). The zero value
// allows any user, named ones too.
type UIDRanges struct {
	ranges []uidRange
}

type uidRange struct{ from, to uint32 }

// maxUID stands for an upper bound that was left out; nobody's uid is above it.
const maxUID = 1<<32 - 1

// ParseUIDRanges reads a comma list of "n", "n-", "-n" and "n-m". The empty
// text is the zero value.
func ParseUIDRanges(text string) (UIDRanges, error) {
	var u UIDRanges
	if text == "" {
		return u, nil
	}
	for item := range strings.SplitSeq(text, ",") {
		item = strings.TrimSpace(item)
		r, ok := parseUIDRange(item)
		if !ok {
			return UIDRanges{}, fmt.Errorf("%q is not a range of uids such as 1001, 1000-, -999 or 1000-1999", item)
		}
		u.ranges = append(u.ranges, r)
	}
	return u, nil
}

func parseUIDRange(item string) (r uidRange, ok bool) {
	from, to, isRange := strings.Cut(item, "-")
	if !isRange {
		to = from
	}
	if from == "" && to == "" {
		return r, false
	}
	r.to = maxUID
	if from != "" {
		if r.from, ok = parseUID(from); !ok {
			return r, false
		}
	}
	if to != "" {
		if r.to, ok = parseUID(to); !ok {
			return r, false
		}
	}
	return r, r.from <= r.to
}

// parseUID reads digits and nothing else.
func parseUID(s string) (uint32, bool) {
	uid, err := strconv.ParseUint(s, 10, 32)
	return uint32(uid), err == nil
}

// String is the list as an operator writes it.
func (u UIDRanges) String() string {
	var items []string
	for _, r := range u.ranges {
		from, to := strconv.FormatUint(uint64(r.from), 10), strconv.FormatUint(uint64(r.to), 10)
		switch {
		case r.from == r.to:
			items = append(items, from)
		case r.to == maxUID:
			items = append(items, from+"-")
		default:
			items = append(items, from+"-"+to)
		}
	}
	return strings.Join(items, ",")
}

// allow tells whether an image may run as user, in the words of its config:
// "user" or "user:group", nobody being uid 0. A name is never allowed, for the
// image decides what it stands for.
func (u UIDRanges) allow(user string) bool {
	if len(u.ranges) == 0 {
		return true
	}
	who, _, _ := strings.Cut(user, ":")
	if who == "" {
		who = "0"
	}
	uid, ok := parseUID(who)
	if !ok {
		return false
	}
	for _, r := range u.ranges {
		if r.from <= uid && uid <= r.to {
			return true
		}
	}
	return false
}

// check is user_not_allowed for an image that runs as user, or nil.
func (u UIDRanges) check(image daeploy.ImageRef, user string) error {
	if u.allow(user) {
		return nil
	}
	if user == "" {
		user = "0"
	}
	return buildFailed("user_not_allowed", "use a builder with such a USER, or ask the operator",
		"%s runs as %q; this server allows numeric users in %s", image, brief(user), u)
}
