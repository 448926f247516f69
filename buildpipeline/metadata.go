package buildpipeline

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/daeploy/daeploy"
)

// A script may name labels of the image in this file, wherever the destination
// is (S120).
const (
	metadataFile  = "/tmp/.s2i/image_metadata.json"
	metadataBytes = 1 << 20
)

// describe puts the labels of image_metadata.json into the config of the image
// to be (S118), whose rootfs is root (S110). It is called after the last script
// has ended, and can be repeated; notices are lines for the log.
func (a *attempt) describe(root labelFile) (notices []string, err error) {
	labels, err := readMetadata(root)
	if err != nil || len(labels) == 0 {
		return nil, err
	}
	config, err := parseImageConfig(a.note.Output.Config)
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	if err := config.read("Labels", &all); err != nil {
		return nil, err
	}
	var refused []string
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		if vouchedFor(name) || strings.HasPrefix(name, labelBuild) {
			refused = append(refused, name)
			continue
		}
		all[name] = labels[name]
	}
	if len(refused) > 0 {
		notices = append(notices, refusedLabels(refused))
	}
	if err := checkLabels(all); err != nil {
		return nil, err
	}
	if err := config.set("Labels", all); err != nil {
		return nil, err
	}
	a.note.Output.Config, err = config.marshal()
	return notices, err
}

// refusedLabels is the notice of S121.
func refusedLabels(names []string) string {
	const most = 3
	more := ""
	if n := len(names) - most; n > 0 {
		more = fmt.Sprintf(" and %d more", n)
	}
	for i := range names[:min(most, len(names))] {
		names[i] = shorten(names[i], detailWidth)
	}
	return notice("%s: %s%s cannot be set: these labels are the server's", metadataFile, strings.Join(names[:min(most, len(names))], ", "), more)
}

// labelFile is the part of Workspace that reading the labels needs.
type labelFile interface {
	Lstat(path string) (daeploy.FileInfo, error)
	ReadFile(path string, most int64) ([]byte, error)
}

// readMetadata reads the labels that a script has left; no file is none. A
// fault is a daeploy.Error with code metadata_invalid.
func readMetadata(root labelFile) (map[string]string, error) {
	info, err := root.Lstat(metadataFile)
	switch {
	case absent(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("look for %s: %w", metadataFile, err)
	case !info.Mode.IsRegular():
		return nil, metadataInvalid("it is not a plain file")
	case info.Size > metadataBytes:
		return nil, metadataInvalid(fmt.Sprintf("it has %d bytes; at most %d are read", info.Size, metadataBytes))
	}
	data, err := root.ReadFile(metadataFile, metadataBytes)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", metadataFile, err)
	}
	return parseMetadata(data)
}

// parseMetadata reads {"labels":[{"name":"value"},...]}; of a name given twice
// the later counts. Names are told apart by case, as JSON has it.
func parseMetadata(data []byte) (map[string]string, error) {
	if len(data) == 0 {
		return nil, metadataInvalid("it is empty")
	}
	var file map[string]json.RawMessage
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, metadataInvalid(jsonProblem(err, "it is not an object"))
	}
	if file == nil {
		return nil, metadataInvalid("it is not an object")
	}
	raw, ok := file["labels"]
	if !ok {
		return nil, nil
	}
	var list []map[string]any
	if err := json.Unmarshal(raw, &list); err != nil || list == nil {
		return nil, metadataInvalid(`"labels" is not a list of objects`)
	}
	labels := map[string]string{}
	for _, entry := range list {
		if entry == nil {
			return nil, metadataInvalid(`"labels" is not a list of objects`)
		}
		for _, name := range slices.Sorted(maps.Keys(entry)) {
			value, ok := entry[name].(string)
			if !ok {
				return nil, metadataInvalid(fmt.Sprintf("the value of %q is not a string", shorten(name, detailWidth)))
			}
			labels[name] = value
		}
	}
	return labels, nil
}

// jsonProblem tells a fault of the text, with its place, from one of its shape.
func jsonProblem(err error, shape string) string {
	if fault, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Sprintf("it is not JSON: byte %d: %v", fault.Offset, fault)
	}
	return shape
}

func metadataInvalid(problem string) error {
	return buildFailed("metadata_invalid", `it must look like {"labels":[{"name":"value"}]}`, "%s: %s", metadataFile, problem)
}
