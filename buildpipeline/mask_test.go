package buildpipeline_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/buildpipeline"
)

// TestMasker: S76. A bar in the input is where a read ends; want has one for
// each read too, and then the rest.
func TestMasker(t *testing.T) {
	for _, test := range []struct {
		name        string
		texts       []string
		reads, want string
	}{
		{"nothing to hide", nil, "pass|word", "pass|word|"},
		{"whole", []string{"password"}, "a password b", "a redacted b|"},
		{"at both ends", []string{"password"}, "passwordpassword", "redactedredacted|"},
		{"split in two", []string{"password"}, "a pass|word b", "a |redacted b|"},
		{"byte by byte", []string{"abc"}, "x|a|b|c|y", "x|||redacted|y|"},
		{"not it after all", []string{"password"}, "a pass|port", "a |passport|"},
		{"half at the end", []string{"password"}, "a pass", "a |pass"},
		{"it begins anew", []string{"aab"}, "aa|ab", "|aredacted|"},
		{"the longest", []string{"user", "user:password", "password"}, "user:pass|word user:x password", "|redacted redacted:x redacted|"},
		{"a longer one might come", []string{"abcd", "abcdefgh"}, "abcd|efg|i abcd", "||redactedefgi |redacted"},
		{"the longer one came", []string{"abcd", "abcdefgh"}, "abcdef|gh", "|redacted|"},
		{"the shorter inside", []string{"bc", "abcd"}, "abc|x", "|aredactedx|"},
		{"line feeds pass", []string{"password"}, "pass\nword", "pass\nword|"},
		{"any byte", []string{"\xff\x00\xfe"}, "\xff\x00|\xfe\xff", "|redacted|\xff"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := buildpipeline.NewMasker(test.texts...)
			var got []string
			for read := range strings.SplitSeq(test.reads, "|") {
				masked, _ := m.Next([]byte(read))
				got = append(got, string(masked))
			}
			got = append(got, string(m.Rest()))
			if diff := cmp.Diff(strings.Split(test.want, "|"), got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// FuzzMasker: what comes out does not depend on where reads end, nor on a
// restart in between, which begins with what was held back; and never more than
// the longest text is.
func FuzzMasker(f *testing.F) {
	f.Add("a password b", "password", "word", uint64(0b1010))
	f.Add("abcdefabcdefgh", "abcd", "abcdefgh", uint64(0xff))
	f.Add("aaaaab", "aab", "ab", uint64(3))
	f.Fuzz(func(t *testing.T, text, one, two string, cuts uint64) {
		texts := []string{one, two}
		want := slowMask(text, texts)
		for _, restart := range []bool{false, true} {
			m := buildpipeline.NewMasker(texts...)
			var got strings.Builder
			from, read := 0, 0 // of text: what is in got, and what was read
			for i := range len(text) + 1 {
				if i < len(text) && cuts>>(i%64)&1 == 0 {
					continue
				}
				masked, held := m.Next([]byte(text[read:i]))
				got.Write(masked)
				read = i
				if from = i - held; held > 0 && held >= max(len(one), len(two)) {
					t.Fatalf("%d bytes are held back for the texts %q", held, texts)
				}
				if restart {
					m, read = buildpipeline.NewMasker(texts...), from
				}
			}
			masked, held := m.Next([]byte(text[read:]))
			got.Write(masked)
			if rest := m.Rest(); held > 0 || len(rest) > 0 {
				got.Write(rest)
			}
			if got.String() != want {
				t.Errorf("restart %v: %q without %q is %q, want %q", restart, text, texts, got.String(), want)
			}
		}
	})
}

func slowMask(text string, texts []string) string {
	var out strings.Builder
	for text != "" {
		longest := ""
		for _, t := range texts {
			if strings.HasPrefix(text, t) && len(t) > len(longest) {
				longest = t
			}
		}
		if longest != "" {
			out.WriteString("redacted")
			text = text[len(longest):]
			continue
		}
		out.WriteByte(text[0])
		text = text[1:]
	}
	return out.String()
}

// TestCredentials: what of a proxy's URL is hidden (S76).
func TestCredentials(t *testing.T) {
	for proxy, want := range map[string][]string{
		"http://proxy.example.org:3128":           nil,
		"http://@proxy.example.org":               nil,
		"http://build:pa%21ss@proxy.example.org/": {"YnVpbGQ6cGEhc3M=", "build:pa%21ss", "pa%21ss", "build:pa!ss", "pa!ss"},
		"build:pass@proxy:3128":                   {"YnVpbGQ6cGFzcw==", "build:pass", "pass", "build:pass", "pass"},
		"http://token@proxy":                      {"dG9rZW4=", "token", "token"},
		"http://u:x@proxy":                        {"dTp4", "u:x", "u:x"},
		"http://u:p@ss/word@proxy":                {"dTpwQHNzL3dvcmQ=", "u:p@ss/word", "p@ss/word", "u:p@ss/word", "p@ss/word"},
		"http://user:100%@proxy":                  {"dXNlcjoxMDAl", "user:100%", "100%", "user:100%", "100%"},
	} {
		if diff := cmp.Diff(want, buildpipeline.Credentials(proxy)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", proxy, diff)
		}
	}
}

// TestOperatorEnv: S75; [env] is more particular than [proxy].
func TestOperatorEnv(t *testing.T) {
	env, hidden := buildpipeline.OperatorEnv(buildpipeline.Rules{
		Proxies: buildpipeline.Proxies{HTTP: "http://proxy:1", HTTPS: "http://u:secret@proxy:2", No: "localhost"},
		Env: map[string]string{
			"https_proxy": "http://other:3", "My_Proxy_URL": "http://v:hidden@p", "OTHER": "http://w:shown@p",
			"GOPROXY": "https://go:mirror1@g/x@v1,direct|https://h", "PIP_INDEX_URL": "https://pip:mirror2@p/simple@1",
		},
		AppEnv: map[daeploy.AppName]map[string]string{
			"blog": {"ALL_PROXY": "http://x:blogs@p", "OTHER": "blog"}, "shop": {"ALL_PROXY": "http://y:shops@p"},
		},
	})
	want := map[string]string{
		"HTTP_PROXY": "http://proxy:1", "http_proxy": "http://proxy:1", "HTTPS_PROXY": "http://u:secret@proxy:2", "https_proxy": "http://other:3",
		"NO_PROXY": "localhost", "no_proxy": "localhost", "My_Proxy_URL": "http://v:hidden@p", "OTHER": "blog", "ALL_PROXY": "http://x:blogs@p",
		"GOPROXY": "https://go:mirror1@g/x@v1,direct|https://h", "PIP_INDEX_URL": "https://pip:mirror2@p/simple@1",
	}
	if diff := cmp.Diff(want, env); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{
		"Z286bWlycm9yMQ==", "blogs", "cGlwOm1pcnJvcjI=", "dTpzZWNyZXQ=", "djpoaWRkZW4=", "eDpibG9ncw==", "go:mirror1", "hidden", "mirror1", "mirror2",
		"pip:mirror2", "secret", "u:secret", "v:hidden", "x:blogs",
	}, hidden); diff != "" {
		t.Errorf("hidden (-want +got):\n%s", diff)
	}
}
