package buildpipeline

import (
	"encoding/base64"
	"net/url"
	"slices"
	"strings"

	"github.com/daeploy/daeploy"
)

const (
	leastSecret = 8  // bytes; shorter ones are parts of common words (S76)
	base64Line  = 76 // characters after which the command base64 begins a new line
)

// redactions are all texts that the output of this build's scripts must not
// show (S76).
func (a *attempt) redactions() []string {
	texts := a.hidden(a.Build.ID.App)
	for name, value := range a.settings.variables {
		texts = append(texts, passwords(name, value)...)
	}
	for _, secret := range a.settings.secrets {
		texts = append(texts, spellings(secret)...)
	}
	slices.Sort(texts)
	return slices.Compact(texts)
}

// spellings are the ways in which a secret of one line is looked for (F96): as
// it is, as base64 writes it with and without the line ends at its end, and as
// it stands in URLs.
func spellings(secret []byte) []string {
	line := strings.TrimRight(string(secret), "\r\n")
	if len(line) < leastSecret || strings.Contains(line, "\n") {
		return nil
	}
	query := url.QueryEscape(line)
	texts := []string{line, query, strings.ReplaceAll(query, "+", "%20"), url.PathEscape(line)}
	for _, whole := range []string{line, line + "\n", string(secret)} {
		for _, e := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
			text := e.EncodeToString([]byte(whole))
			texts = append(texts, text, brokenAt(text, base64Line))
		}
	}
	slices.Sort(texts)
	return pieces(slices.Compact(texts))
}

// brokenAt breaks a text into lines.
func brokenAt(text string, width int) string {
	var lines []string
	for part := range slices.Chunk([]byte(text), width) {
		lines = append(lines, string(part))
	}
	return strings.Join(lines, "\n")
}

// pieces cuts texts to what a masker takes. A rest of less than leastSecret bytes
// is not looked for.
func pieces(texts []string) []string {
	var out []string
	for _, text := range texts {
		for part := range slices.Chunk([]byte(text), daeploy.OutputKept) {
			if len(part) >= leastSecret {
				out = append(out, string(part))
			}
		}
	}
	return out
}
