package daeploy

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// AppName names an app, its repository and its images (F37).
type AppName string

var appName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,48}[a-z0-9])?$`)

// ParseAppName accepts 1 to 50 lower-case letters, digits and inner hyphens.
func ParseAppName(s string) (AppName, error) {
	if !appName.MatchString(s) {
		return "", &Error{
			Kind: Invalid, Code: "app_name_invalid",
			Message: fmt.Sprintf("%q is not an app name", clip(s)),
			Hint:    "use 1 to 50 lower-case letters, digits and hyphens, as in ssh://daeploy@host:2222/blog",
		}
	}
	return AppName(s), nil
}

// SelfTest is the app that init builds to test a host, and removes: it concerns
// nobody else, so no registry gets its image and no webhook its events.
const SelfTest AppName = "daeploy-self-test"

// App is a repository with its settings.
type App struct {
	Name    AppName   `json:"name"`
	Branch  string    `json:"branch"`          // deploy branch without refs/heads/; "" until a first branch was pushed
	Fixed   bool      `json:"fixed,omitempty"` // Branch was set by hand: it wins over .daeploy (S166)
	Created time.Time `json:"created"`
	Builds  uint64    `json:"builds"` // the highest build number given out
}

// KeyID is the fingerprint of a public key: "SHA256:" and unpadded base64.
type KeyID string

// Key is a public key that may log in.
type Key struct {
	ID     KeyID     `json:"id"`
	Name   string    `json:"name"`   // unique, chosen by the operator, shown as "by"
	Type   string    `json:"type"`   // "ssh-ed25519", ...
	Public string    `json:"public"` // authorized_keys form, without comment
	Admin  bool      `json:"admin"`
	Apps   []AppName `json:"apps"` // what a key that is not admin may push to, read and change
	Read   []AppName `json:"read"` // what it may only read
	Added  time.Time `json:"added"`
}

var keyName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._@-]{0,62}[A-Za-z0-9])?$`)

// ParseKeyName accepts 1 to 64 letters, digits and inner . _ @ -.
func ParseKeyName(s string) (string, error) {
	if !keyName.MatchString(s) {
		return "", &Error{
			Kind: Usage, Code: "key_name_invalid",
			Message: fmt.Sprintf("%q is not a key name", clip(s)),
			Hint:    "use 1 to 64 letters, digits and . _ @ - inside, as in anna or anna@laptop",
		}
	}
	return s, nil
}

// Actor is who asks for something: the holder of a proven key, or the
// operator at the host's own door. It is a value made at the start of a
// session; rights that must be current are looked up again.
type Actor struct {
	Name string
	Key  KeyID // "" at the local door
	// Certificate is by what the key was let in; nil for one that was added here.
	Certificate *Certificate
	Admin       bool
	Apps        []AppName // as in Key
	Read        []AppName // as in Key
	Remote      string    // address for the audit trail: "192.0.2.7:4711" or "local uid 0"
}

// May tells whether the actor has the right "app" for this app: to push, read
// and change it.
func (a Actor) May(app AppName) bool { return a.Admin || slices.Contains(a.Apps, app) }

// MayRead tells whether the actor has at least the right "read" for this app.
func (a Actor) MayRead(app AppName) bool { return a.May(app) || slices.Contains(a.Read, app) }

// Readable lists the apps that an actor who is not admin may read; it is never
// nil, which in a filter would mean all.
func (a Actor) Readable() []AppName {
	return append(append([]AppName{}, a.Apps...), a.Read...)
}

// ActorOf makes the actor that a proven key stands for.
func ActorOf(k Key, remote string) Actor {
	return Actor{Name: k.Name, Key: k.ID, Admin: k.Admin, Apps: slices.Clone(k.Apps), Read: slices.Clone(k.Read), Remote: remote}
}

// BranchName is the short name of a branch or tag ref, for people and for
// DAEPLOY_BRANCH (S72): "refs/heads/main" and "refs/tags/v1" give "main", "v1".
func BranchName(ref string) string {
	for _, prefix := range []string{"refs/heads/", "refs/tags/"} {
		if s, ok := strings.CutPrefix(ref, prefix); ok {
			return s
		}
	}
	return ref
}
