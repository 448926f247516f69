package builderimage

import (
	"cmp"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/daeploy/daeploy"
)

// Recipe says what a builder image is made of. It is read from builder.toml,
// beside which the directory s2i/bin holds the scripts, and the directory files,
// if there is one, further files of the image. The operator wrote it
// and is trusted; Validate catches slips, and keeps values apart from syntax
// (options of commands, lines of files) that they could be taken for.
type Recipe struct {
	Name        daeploy.ImageRef `toml:"name"`         // complete, "daeploy.local/builders/python:3.11"
	DisplayName string           `toml:"display_name"` // one line
	Description string           `toml:"description"`  // one line
	Tags        []string         `toml:"tags"`         // words for io.openshift.tags
	Runtime     bool             `toml:"runtime"`      // for [runtime] of .daeploy: there is no assemble (S102)

	Suite       string    `toml:"suite"`        // Debian's code name, "bookworm"
	ExtraSuites []string  `toml:"extra_suites"` // of the same archive, "bookworm-backports"
	Components  []string  `toml:"components"`   // of the archive; empty = main
	Packages    []string  `toml:"packages"`     // on top of the smallest system that has apt
	BaseHooks   []string  `toml:"base_hooks"`   // mmdebstrap's own hook directories, by name
	Epoch       time.Time `toml:"epoch"`        // no file is younger; also the image's creation time

	// Only, if not empty, makes an image of no system at all: the packages are
	// unpacked, none is installed, and of their files those are taken that match.
	// Directories are made as needed. The bundle etc/ssl/certs/ca-certificates.crt
	// is made if ca-certificates is among the packages.
	Only []string `toml:"only"`

	User        User              `toml:"user"`
	Workdir     string            `toml:"workdir"`     // absolute; it must be one of Directories
	Env         []string          `toml:"env"`         // NAME=value, kept in order
	Labels      map[string]string `toml:"labels"`      // beyond those made from other fields
	Port        int               `toml:"port"`        // TCP, what an app listens on; 0 = none
	Directories []Directory       `toml:"directories"` // made in this order, parents as needed
	Remove      []string          `toml:"remove"`      // patterns of files to leave out, see matchPath
	Keep        []string          `toml:"keep"`        // exceptions from Remove
	Detect      []string          `toml:"detect"`      // files that tell that a source is for this builder (S167)
	Cache       string            `toml:"cache"`       // absolute: where its package managers keep downloads; "" = nowhere
}

// User is the account an app runs by.
type User struct {
	Name string `toml:"name"`
	UID  uint32 `toml:"uid"`
	GID  uint32 `toml:"gid"` // a group the base system has; 0 by S2I's custom
	Home string `toml:"home"`
}

// Directory is one to make in the image. It must not be in the base system.
type Directory struct {
	Path string `toml:"path"`
	UID  uint32 `toml:"uid"`
	GID  uint32 `toml:"gid"`
	Mode uint32 `toml:"mode"` // permission bits, sticky included
}

// maxID is the highest user or group number every tool agrees on.
const maxID = 1<<31 - 1

var (
	suiteName   = regexp.MustCompile(`^[a-z][a-z0-9-]*$`)
	packageName = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]+$`)
	plainWord   = regexp.MustCompile(`^[a-z0-9][a-z0-9.+-]*$`)
	userName    = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)
	envName     = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	labelName   = regexp.MustCompile(`^[a-z0-9]([a-z0-9._/-]*[a-z0-9])?$`)
	detectName  = regexp.MustCompile(`^[A-Za-z0-9._][A-Za-z0-9._-]*$`)
)

// Validate reports the first fault as a daeploy.Error of kind Invalid that
// names the key, as in `builder.toml: packages: "-x" is not a package name`.
func (r Recipe) Validate() error {
	for _, check := range []func() error{r.checkWords, r.checkBase, r.checkUser, r.checkEnv, r.checkLabels, r.checkPaths} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func recipeError(key, format string, args ...any) error {
	return daeploy.Errorf(daeploy.Invalid, "recipe_invalid", "builder.toml: %s: %s", key, fmt.Sprintf(format, args...))
}

// each reports the first of values that re does not match.
func each(key string, re *regexp.Regexp, kind string, values ...string) error {
	for _, v := range values {
		if !re.MatchString(v) {
			return recipeError(key, "%q is not %s", v, kind)
		}
	}
	return nil
}

func oneLine(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c == 0x7f })
}

func (r Recipe) checkWords() error {
	ref, err := daeploy.ParseImageRef(string(r.Name))
	switch {
	case err != nil:
		return recipeError("name", "%v", err)
	case ref != r.Name || ref.Digest() != "":
		return recipeError("name", "%q is not a complete name with a tag and without a digest, such as %s/builders/python:3.11", r.Name, daeploy.ImageDomain)
	case !oneLine(r.DisplayName) || r.DisplayName == "":
		return recipeError("display_name", "one line is needed")
	case !oneLine(r.Description):
		return recipeError("description", "it has more than one line")
	case r.Port < 0 || r.Port > 65535:
		return recipeError("port", "%d is not in 1 to 65535", r.Port)
	}
	if err := each("detect", detectName, "a file name", r.Detect...); err != nil {
		return err
	}
	if r.Cache != "" {
		if err := checkPath("cache", r.Cache); err != nil {
			return err
		}
	}
	return each("tags", plainWord, "a tag", r.Tags...)
}

func (r Recipe) checkBase() error {
	if r.Epoch.IsZero() || r.Epoch.Unix() < 0 || r.Epoch.Nanosecond() != 0 {
		return recipeError("epoch", "a time since 1970 in whole seconds is needed, such as 2026-01-01T00:00:00Z")
	}
	if err := each("suite", suiteName, "a suite's code name", r.Suite); err != nil {
		return err
	}
	if err := each("extra_suites", suiteName, "a suite's code name", r.ExtraSuites...); err != nil {
		return err
	}
	if err := each("components", plainWord, "a component", r.Components...); err != nil {
		return err
	}
	if err := each("base_hooks", plainWord, "the name of a hook directory", r.BaseHooks...); err != nil {
		return err
	}
	return each("packages", packageName, "a package name", r.Packages...)
}

func (r Recipe) checkUser() error {
	u := r.User
	if err := each("user.name", userName, "a user name", u.Name); err != nil {
		return err
	}
	switch {
	case u.UID == 0 || u.UID > maxID:
		return recipeError("user.uid", "%d is not in 1 to %d", u.UID, maxID)
	case u.GID > maxID:
		return recipeError("user.gid", "%d is above %d", u.GID, maxID)
	case strings.ContainsRune(u.Home, ':'):
		return recipeError("user.home", "%q has a colon", u.Home)
	}
	return checkPath("user.home", u.Home)
}

func (r Recipe) checkEnv() error {
	seen := map[string]bool{scriptsEnv: true}
	for _, e := range r.Env {
		name, value, ok := strings.Cut(e, "=")
		switch {
		case !ok || !envName.MatchString(name):
			return recipeError("env", "%q is not NAME=value", e)
		case !oneLine(value):
			return recipeError("env", "the value of %s has control characters", name)
		case name == scriptsEnv:
			return recipeError("env", "%s is set by the image builder", name)
		case seen[name]:
			return recipeError("env", "%s is given twice", name)
		}
		seen[name] = true
	}
	return nil
}

func (r Recipe) checkLabels() error {
	made := r
	made.Labels = nil
	taken := made.labels()
	for name, value := range r.Labels {
		switch {
		case !labelName.MatchString(name):
			return recipeError("labels", "%q is not a label name", name)
		case !oneLine(value):
			return recipeError("labels", "the value of %s has control characters", name)
		case taken[name] != "":
			return recipeError("labels", "%s is made from another key", name)
		}
	}
	return nil
}

func (r Recipe) checkPaths() error {
	var made []string
	for _, d := range r.Directories {
		if err := checkPath("directories", d.Path); err != nil {
			return err
		}
		switch {
		case d.UID > maxID || d.GID > maxID:
			return recipeError("directories", "the owner of %s is above %d", d.Path, maxID)
		case d.Mode&^0o1777 != 0 || d.Mode&0o700 != 0o700:
			return recipeError("directories", "mode %#o of %s: want permissions with 0o700, such as 0o755", d.Mode, d.Path)
		case slices.Contains(made, d.Path):
			return recipeError("directories", "%s is given twice", d.Path)
		}
		made = append(made, d.Path)
	}
	if !slices.Contains(made, r.Workdir) {
		return recipeError("workdir", "%q is not one of the directories", r.Workdir)
	}
	return cmp.Or(checkPatterns("remove", r.Remove), checkPatterns("keep", r.Keep), checkPatterns("only", r.Only))
}

func checkPatterns(key string, patterns []string) error {
	for _, p := range patterns {
		if _, err := path.Match(p, ""); err != nil || p == "" || p[0] == '/' || path.Clean(p) != p || strings.HasPrefix(p, "..") {
			return recipeError(key, "%q is not a clean pattern relative to the root, such as usr/share/man/*/*", p)
		}
	}
	return nil
}

func checkPath(key, p string) error {
	if !path.IsAbs(p) || path.Clean(p) != p || p == "/" || !oneLine(p) {
		return recipeError(key, "%q is not a clean absolute path", p)
	}
	return nil
}
