package container

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/daeploy/daeploy"
)

// unmarshalConfig reads an image's config.
func unmarshalConfig(image daeploy.Image, v any) error {
	if err := json.Unmarshal(image.Config, v); err != nil {
		return fmt.Errorf("read config of %s: %w", image.Ref, err)
	}
	return nil
}

// historyEntry is one step of how an image was made.
type historyEntry struct {
	Created   string `json:"created"`
	CreatedBy string `json:"created_by,omitempty"`
}

// appendLayer adds a layer to the config that the output asks for: its diff id,
// its line of history and the time. Every other field stays value for value,
// known or not (S115, S116).
func appendLayer(out daeploy.Output, layer digest.Digest) (text []byte, diffIDs []digest.Digest, err error) {
	var config, rootfs map[string]json.RawMessage
	if err := json.Unmarshal(out.Config, &config); err != nil {
		return nil, nil, fmt.Errorf("read config of %s: %w", out.Name, err)
	}
	if config == nil {
		return nil, nil, fmt.Errorf("config of %s is null", out.Name)
	}
	if raw, ok := config["rootfs"]; ok {
		if err := json.Unmarshal(raw, &rootfs); err != nil {
			return nil, nil, fmt.Errorf("read rootfs of %s: %w", out.Name, err)
		}
	}
	if rootfs == nil {
		rootfs = map[string]json.RawMessage{"type": json.RawMessage(`"layers"`)}
	}
	if raw, ok := rootfs["diff_ids"]; ok {
		if err := json.Unmarshal(raw, &diffIDs); err != nil {
			return nil, nil, fmt.Errorf("read diff_ids of %s: %w", out.Name, err)
		}
	}
	var history []json.RawMessage
	if raw, ok := config["history"]; ok {
		if err := json.Unmarshal(raw, &history); err != nil {
			return nil, nil, fmt.Errorf("read history of %s: %w", out.Name, err)
		}
	}
	created := out.Created.UTC().Format(time.RFC3339Nano)
	line, err := encode(historyEntry{Created: created, CreatedBy: out.CreatedBy})
	if err != nil {
		return nil, nil, err
	}
	diffIDs = append(diffIDs, layer)
	for _, set := range []struct {
		in    map[string]json.RawMessage
		key   string
		value any
	}{
		{rootfs, "diff_ids", diffIDs},
		{config, "rootfs", rootfs},
		{config, "history", append(history, line)},
		{config, "created", created},
	} {
		if set.in[set.key], err = encode(set.value); err != nil {
			return nil, nil, err
		}
	}
	text, err = encode(config)
	return text, diffIDs, err
}

// encode is json.Marshal that leaves <, > and & as they are.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}
