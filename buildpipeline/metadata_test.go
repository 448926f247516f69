package buildpipeline_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/buildpipeline"
)

// TestParseMetadata: S120 (C42).
func TestParseMetadata(t *testing.T) {
	for _, test := range []struct {
		name, text string
		want       map[string]string
		problem    string
	}{
		{name: "valid", text: `{"labels":[{"a":"1"},{"b":"2","c":""}]}`, want: map[string]string{"a": "1", "b": "2", "c": ""}},
		{name: "later wins", text: `{"labels":[{"a":"1"},{"a":"2"}]}`, want: map[string]string{"a": "2"}},
		{name: "other keys", text: ` {"Labels":[{"a":1}],"x":{}} `},
		{name: "no labels", text: `{}`},
		{name: "empty list", text: `{"labels":[]}`, want: map[string]string{}},
		{name: "empty", text: ``, problem: "it is empty"},
		{name: "not JSON", text: `{"labels":[`, problem: "it is not JSON: byte 11: unexpected end of JSON input"},
		{name: "two documents", text: `{} {}`, problem: "it is not JSON: byte 4: invalid character '{' after top-level value"},
		{name: "blanks alone", text: "\n", problem: "it is not JSON: byte 1: unexpected end of JSON input"},
		{name: "a list", text: `[]`, problem: "it is not an object"},
		{name: "null", text: `null`, problem: "it is not an object"},
		{name: "null labels", text: `{"labels":null}`, problem: `"labels" is not a list of objects`},
		{name: "an object of labels", text: `{"labels":{"a":"1"}}`, problem: `"labels" is not a list of objects`},
		{name: "null entry", text: `{"labels":[null]}`, problem: `"labels" is not a list of objects`},
		{name: "text entry", text: `{"labels":["a=1"]}`, problem: `"labels" is not a list of objects`},
		{name: "number", text: `{"labels":[{"a":1}]}`, problem: `the value of "a" is not a string`},
		{name: "null value", text: `{"labels":[{"a":null}]}`, problem: `the value of "a" is not a string`},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := buildpipeline.ParseMetadata([]byte(test.text))
			if test.problem != "" {
				want := "/tmp/.s2i/image_metadata.json: " + test.problem
				var e *daeploy.Error
				if !errors.As(err, &e) || e.Code != "metadata_invalid" || e.Message != want {
					t.Errorf("error %v, want metadata_invalid %q", err, want)
				}
				return
			}
			if diff := cmp.Diff(test.want, got); err != nil || diff != "" {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
}

// FuzzParseMetadata: whatever a script leaves is labels or metadata_invalid.
func FuzzParseMetadata(f *testing.F) {
	f.Add(`{"labels":[{"a":"1"}]}`)
	f.Add(`{"labels":[{"a":1}]}`)
	f.Add(`[`)
	f.Fuzz(func(t *testing.T, text string) {
		labels, err := buildpipeline.ParseMetadata([]byte(text))
		var e *daeploy.Error
		switch {
		case err != nil && (!errors.As(err, &e) || e.Code != "metadata_invalid"):
			t.Errorf("%q: error %v", text, err)
		case len(labels) > 0 && !strings.Contains(text, "labels") && !strings.Contains(text, `\u`):
			t.Errorf("%q gives %v", text, labels)
		}
	})
}
