package buildpipeline_test

import (
	"encoding/base64"
	"net/url"
	"os/exec"
	"strings"
	"testing"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/buildpipeline"
)

// masked is what a log shows of a text, read in small pieces.
func masked(secret, text string) string {
	m := buildpipeline.NewMasker(buildpipeline.Spellings([]byte(secret))...)
	var out strings.Builder
	for i := 0; i < len(text); i += 5 {
		part, _ := m.Next([]byte(text[i:min(i+5, len(text))]))
		out.Write(part)
	}
	out.Write(m.Rest())
	return out.String()
}

// F96: the spellings that are recognised. Those of tools are asked of the tools.
func TestSecretSpellings(t *testing.T) {
	long := "eyJhbGciOi" + strings.Repeat("x/+?>~", 20)
	for _, secret := range []string{"12345678", "correct horse battery", "a+b/c=d&e?f", "p\u00e4sswort-\xff\xfe", long} {
		for _, file := range []string{secret, secret + "\n", secret + "\r\n"} {
			tool := exec.Command("base64")
			tool.Stdin = strings.NewReader(file)
			broken, err := tool.Output()
			if err != nil {
				t.Fatal(err)
			}
			for name, text := range map[string]string{
				"as it is":            secret,
				"base64":              base64.StdEncoding.EncodeToString([]byte(file)),
				"base64 of the line":  base64.StdEncoding.EncodeToString([]byte(secret)),
				"the command base64":  strings.TrimSuffix(string(broken), "\n"),
				"base64 for URLs":     base64.URLEncoding.EncodeToString([]byte(file)),
				"the same, unpadded":  base64.RawURLEncoding.EncodeToString([]byte(secret)),
				"in a query":          url.QueryEscape(secret),
				"in a query, with 20": strings.ReplaceAll(url.QueryEscape(secret), "+", "%20"),
				"in a path":           url.PathEscape(secret),
			} {
				if got := masked(file, "a "+text+" b"); got != "a redacted b" {
					t.Errorf("%q %s: %q is shown as %q", file, name, text, got)
				}
			}
		}
	}
	for name, secret := range map[string]string{"short": "1234567", "two lines": "12345678\n12345678", "short by its line end": "1234567\n", "nothing": ""} {
		if got := buildpipeline.Spellings([]byte(secret)); len(got) > 0 {
			t.Errorf("%s: %q is looked for", name, got)
		}
	}
	t.Attr("F96", "spellings of secrets by base64 and by URL, made by the tools themselves: each is found")
}

// A secret of the largest size leaves no more than a rest that tells nothing.
func TestLargeSecretIsMasked(t *testing.T) {
	secret := strings.Repeat("0123456789abcde", daeploy.MaxSettingBytes/15)
	for _, text := range []string{secret, base64.StdEncoding.EncodeToString([]byte(secret))} {
		if left := strings.ReplaceAll(masked(secret, text), "redacted", ""); left != "" {
			t.Errorf("%d bytes of %d are left", len(left), len(text))
		}
	}
	for _, text := range buildpipeline.Spellings([]byte(secret)) {
		if len(text) > daeploy.OutputKept {
			t.Errorf("a masker is given %d bytes", len(text))
		}
	}
}
