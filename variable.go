package daeploy

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Limits of what is set for the builds of one app: variables and secrets each.
const (
	MaxSettings      = 100
	MaxSettingBytes  = 64 << 10 // of one value
	MaxSettingsBytes = 1 << 20  // of all values
)

// Variable is in the environment of an app's builds because somebody set it
// there, not in the source (E8).
type Variable struct {
	Name    string    `json:"name"`
	Value   string    `json:"value"`
	Persist bool      `json:"persist"` // the image has it too (S61)
	Set     time.Time `json:"set"`
}

// Same tells whether a build finds no difference between the two.
func (v Variable) Same(o Variable) bool {
	return v.Name == o.Name && v.Value == o.Value && v.Persist == o.Persist
}

// Secret is a file that an app's builds see below /run/secrets (S74). Its
// content is with the store alone.
type Secret struct {
	Name string    `json:"name"`
	Size int       `json:"size"` // bytes
	Set  time.Time `json:"set"`
}

var settingName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,127}$`)

// Check refuses a name nobody may set (S66), and what is no UTF-8 text without
// NUL. No error shows the value.
func (v Variable) Check() error {
	switch {
	case !settingName.MatchString(v.Name):
		return settingError("variable", v.Name, "is not a name of a variable", hintName)
	case slices.Contains(ReservedEnv, v.Name):
		return settingError("variable", v.Name, "is reserved: daeploy sets it", "use another name")
	case len(v.Value) > MaxSettingBytes:
		return settingError("variable", v.Name, fmt.Sprintf("has %d bytes; at most %d are allowed", len(v.Value), MaxSettingBytes), hintSize)
	case strings.ContainsRune(v.Value, 0) || !utf8.ValidString(v.Value):
		return settingError("variable", v.Name, "has a NUL in it, or is no UTF-8 text", "a secret may hold any bytes")
	}
	return nil
}

// CheckSecret refuses a name that is no plain file name, and a value that is
// empty or too large.
func CheckSecret(name string, value []byte) error {
	switch {
	case !settingName.MatchString(name):
		return settingError("secret", name, "is not a name of a secret", hintName)
	case len(value) == 0:
		return settingError("secret", name, "would be empty", "unset it, if that is what you want")
	case len(value) > MaxSettingBytes:
		return settingError("secret", name, fmt.Sprintf("has more than %d bytes", MaxSettingBytes), hintSize)
	}
	return nil
}

const (
	hintName = "a name is 1 to 128 of A-Z a-z 0-9 _ . - and begins with a letter or _"
	hintSize = "fetch larger things in assemble"
)

func settingError(what, name, problem, hint string) error {
	return &Error{
		Kind: Invalid, Code: what + "_invalid", Message: fmt.Sprintf("%s %q %s", what, clip(name), problem),
		Hint: hint,
	}
}
