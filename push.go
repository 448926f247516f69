package daeploy

import (
	"fmt"
	"slices"
	"strings"
)

// Push is what one `git push` brought, after git and gitreceive have checked
// it: the objects are in the repository, the names are sound, the refs have
// not moved. It is a fact and never changes.
type Push struct {
	App      AppName
	By       Actor
	Atomic   bool // all commands or none
	Options  PushOptions
	Commands []Command
}

// Command asks for one ref to move. Old is what the pusher saw, which need not
// be what the ref holds now.
type Command struct {
	RefUpdate

	// Target is the commit that New is or, for an annotated tag, peels to;
	// empty for a deletion.
	Target Revision
}

// IsBranch tells whether the ref lies below refs/heads/.
func (c Command) IsBranch() bool { return strings.HasPrefix(c.Ref, "refs/heads/") }

// Policy says what to do when a build of the app is already running.
type Policy string

// The policies.
const (
	Wait      Policy = "wait" // the default
	Supersede Policy = "supersede"
	Reject    Policy = "reject"
)

// PushOptions are the words of `git push -o` (interface.md, section 3).
type PushOptions struct {
	Detach  bool              `json:"detach,omitempty"`
	Clean   bool              `json:"clean,omitempty"`
	Build   bool              `json:"build,omitempty"`
	Quiet   bool              `json:"quiet,omitempty"`
	Verbose bool              `json:"verbose,omitempty"`
	Builder ImageRef          `json:"builder,omitempty"`
	Running Policy            `json:"running,omitempty"`
	Env     map[string]string `json:"env,omitempty"`
}

// Limits of push options (faults.md, section 2).
const (
	MaxPushOptions   = 16
	MaxPushOptionLen = 1024 // bytes
)

// ReservedEnv are the names nobody may set (S66).
var ReservedEnv = []string{"DAEPLOY_APP", "DAEPLOY_BUILD", "DAEPLOY_COMMIT", "DAEPLOY_BRANCH"}

// ParsePushOptions reads the options of one push. An unknown one is an error
// that lists them all (F36).
func ParsePushOptions(words []string) (PushOptions, error) {
	var o PushOptions
	if len(words) > MaxPushOptions {
		return o, optionError("%d push options; at most %d are allowed", len(words), MaxPushOptions)
	}
	for _, w := range words {
		if err := o.set(w); err != nil {
			return PushOptions{}, err
		}
	}
	return o, nil
}

func (o *PushOptions) set(word string) error {
	if len(word) > MaxPushOptionLen {
		return optionError("a push option has %d bytes; at most %d are allowed", len(word), MaxPushOptionLen)
	}
	name, value, hasValue := strings.Cut(word, "=")
	if env, ok := strings.CutPrefix(name, "env."); ok && hasValue {
		return o.setEnv(env, value)
	}
	if name == "builder" && hasValue {
		ref, err := ParseImageRef(value)
		if err != nil {
			return optionError("push option builder: %v", err)
		}
		o.Builder = ref
		return nil
	}
	switch word {
	case "detach":
		o.Detach = true
	case "clean":
		o.Clean = true
	case "build":
		o.Build = true
	case "quiet":
		o.Quiet = true
	case "verbose":
		o.Verbose = true
	case "wait", "supersede", "reject":
		o.Running = Policy(word)
	default:
		return optionError("unknown push option %q", clip(word))
	}
	return nil
}

func (o *PushOptions) setEnv(name, value string) error {
	switch {
	case name == "" || strings.ContainsAny(name, " \t\r\n\x00"):
		return optionError("push option %q: the name is empty or has white space", clip("env."+name))
	case strings.ContainsAny(value, "\x00\n"):
		return optionError("push option %q: NUL and line feed are not allowed in the value", clip("env."+name))
	case slices.Contains(ReservedEnv, name):
		return optionError("push option %q: the name is reserved", "env."+name)
	}
	if o.Env == nil {
		o.Env = map[string]string{}
	}
	o.Env[name] = value
	return nil
}

func optionError(format string, args ...any) error {
	return &Error{
		Kind: Usage, Code: "push_option_invalid", Message: fmt.Sprintf(format, args...),
		Hint: "options: build builder=IMAGE clean detach env.NAME=VALUE quiet reject supersede verbose wait",
	}
}
