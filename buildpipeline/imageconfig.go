package buildpipeline

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
)

// imageConfig is an OCI image config that keeps what it does not know (S115).
type imageConfig struct {
	top, config map[string]json.RawMessage
}

func parseImageConfig(data []byte) (*imageConfig, error) {
	c := &imageConfig{top: map[string]json.RawMessage{}, config: map[string]json.RawMessage{}}
	if err := json.Unmarshal(data, &c.top); err != nil {
		return nil, fmt.Errorf("read the image config: %w", err)
	}
	if c.top == nil { // of "null"
		return nil, errors.New("read the image config: it is no JSON object")
	}
	if raw, ok := c.top["config"]; ok && string(raw) != "null" {
		if err := json.Unmarshal(raw, &c.config); err != nil {
			return nil, fmt.Errorf("read the image config: %w", err)
		}
	}
	return c, nil
}

// marshal writes the config with its keys sorted, so that equal configs are
// equal bytes.
func (c *imageConfig) marshal() ([]byte, error) {
	inner, err := json.Marshal(c.config)
	if err != nil {
		return nil, err
	}
	top := maps.Clone(c.top)
	top["config"] = inner
	return json.Marshal(top)
}

// read fills into from a key of the inner config; nothing there leaves it.
func (c *imageConfig) read(key string, into any) error {
	raw, ok := c.config[key]
	if !ok || string(raw) == "null" {
		return nil
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("image config %s: %w", key, err)
	}
	return nil
}

func (c *imageConfig) set(key string, value any) error {
	raw, err := json.Marshal(value)
	if err != nil {
		return err
	}
	c.config[key] = raw
	return nil
}

// builderFacts is what the contract reads from an image's config.
type builderFacts struct {
	Env        envList
	Labels     map[string]string
	User       string
	WorkingDir string
	Entrypoint []string
	OnBuild    []string
}

func (c *imageConfig) facts() (builderFacts, error) {
	f := builderFacts{Labels: map[string]string{}}
	for key, into := range map[string]any{
		"Env": &f.Env, "Labels": &f.Labels, "User": &f.User, "WorkingDir": &f.WorkingDir,
		"Entrypoint": &f.Entrypoint, "OnBuild": &f.OnBuild,
	} {
		if err := c.read(key, into); err != nil {
			return f, err
		}
	}
	return f, nil
}

// env reads a variable of the image, white space cut at both ends (section 2
// of the contract).
func (f builderFacts) env(name string) string {
	v, _ := f.Env.get(name)
	return strings.TrimSpace(v)
}

func (f builderFacts) label(name string) string { return strings.TrimSpace(f.Labels[name]) }

// user is who a script of the image runs as: the one that label names, or USER
// (S13, S14).
func (f builderFacts) user(label string) string {
	if user := f.label(label); user != "" {
		return user
	}
	return strings.TrimSpace(f.User)
}
