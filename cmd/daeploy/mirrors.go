package main

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/daeploy/daeploy"
)

// mirrorConfig says where builds get packages from instead of the usual places.
type mirrorConfig struct {
	Pip string `toml:"pip"`
	NPM string `toml:"npm"`
	Go  string `toml:"go"` // as GOPROXY: URLs, "direct" and "off", with commas or bars between
}

// appConfig is what differs for the builds of one app.
type appConfig struct {
	Mirrors mirrorConfig      `toml:"mirrors"`
	Env     map[string]string `toml:"env"`
	Push    appPushConfig     `toml:"push"`
	Keep    keepConfig        `toml:"keep"`
}

// variables are what the tools read.
func (m mirrorConfig) variables() map[string]string {
	env := map[string]string{"PIP_INDEX_URL": m.Pip, "npm_config_registry": m.NPM, "GOPROXY": m.Go}
	maps.DeleteFunc(env, func(_, value string) bool { return value == "" })
	return env
}

// environment gives the variables of all builds, and those that one app's
// builds have on top (E4). A name that [env] spells out wins over a mirror.
func (c *config) environment() (all map[string]string, apps map[daeploy.AppName]map[string]string) {
	join := func(m mirrorConfig, env map[string]string) map[string]string {
		set := m.variables()
		maps.Copy(set, env)
		return set
	}
	apps = map[daeploy.AppName]map[string]string{}
	for name, app := range c.Apps {
		apps[name] = join(app.Mirrors, app.Env)
	}
	return join(c.Mirrors, c.Env), apps
}

// checkEnv refuses what no tool or container could take. A value may hold a
// password, so no error shows it.
func (c *config) checkEnv() error {
	if err := checkEnv("", c.Mirrors, c.Env); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(c.Apps)) {
		if _, err := daeploy.ParseAppName(string(name)); err != nil {
			return badValue("apps", daeploy.Public(err, "the configuration").Message)
		}
		if err := checkEnv("apps."+string(name)+".", c.Apps[name].Mirrors, c.Apps[name].Env); err != nil {
			return err
		}
	}
	return nil
}

func checkEnv(prefix string, m mirrorConfig, env map[string]string) error {
	if m.Pip != "" && !isMirror(m.Pip) {
		return badValue(prefix+"mirrors.pip", "is not an http or https URL")
	}
	if m.NPM != "" && !isMirror(m.NPM) {
		return badValue(prefix+"mirrors.npm", "is not an http or https URL")
	}
	for word := range strings.FieldsFuncSeq(m.Go, func(r rune) bool { return r == ',' || r == '|' }) {
		if word != "direct" && word != "off" && !isMirror(word) {
			return badValue(prefix+"mirrors.go", "has a part that is neither an http or https URL nor direct or off")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		switch {
		case name == "" || strings.ContainsAny(name, "=\x00") || strings.Contains(env[name], "\x00"):
			return badValue(prefix+"env", fmt.Sprintf("cannot set %q: the name is empty or has =, or there is a NUL", name))
		case slices.Contains(daeploy.ReservedEnv, name):
			return badValue(prefix+"env", fmt.Sprintf("cannot set %s: daeploy sets it", name))
		}
	}
	return nil
}

// isMirror tells whether s is a URL that package tools can fetch from.
func isMirror(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && !strings.ContainsAny(s, " \t")
}
