package gitreceive_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/gitreceive"
	"github.com/daeploy/daeploy/gitreceive/remotetest"
)

// elsewhere is an app whose submodules are on a server of https.
type elsewhere struct {
	*bare
	server *remotetest.Server
	root   string
	config gitreceive.SubmoduleConfig
	limits gitreceive.Limits
	most   daeploy.TreeLimits
	audit  *syncBuffer

	came []daeploy.Submodule // of the last fetch
}

func newElsewhere(t *testing.T) *elsewhere {
	for _, name := range []string{"NO_PROXY", "no_proxy"} {
		t.Setenv(name, "127.0.0.1")
	}
	e := &elsewhere{root: t.TempDir(), audit: new(syncBuffer), most: daeploy.DefaultTreeLimits}
	e.bare = newBareLog(t, slog.New(slog.NewTextHandler(e.audit, nil)))
	var err error
	e.server, err = remotetest.New(e.root, filepath.Join(t.TempDir(), "ca.pem"))
	must(t, err)
	t.Cleanup(e.server.Close)
	e.config = gitreceive.SubmoduleConfig{Hosts: []string{e.server.Host}, CA: e.server.CA}
	return e
}

// origin makes a repository on the server with a commit of these tree lines.
func (e *elsewhere) origin(name string, lines func(*bare) []string) daeploy.Revision {
	e.t.Helper()
	home := e.t.TempDir()
	b := &bare{t: e.t, repos: e.repos, dir: filepath.Join(e.root, name)}
	b.git = func(stdin string, args ...string) string {
		e.t.Helper()
		cmd := command(e.t, home, b.dir, args...)
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.Output()
		if err != nil {
			e.t.Fatalf("git %q: %v", args, err)
		}
		return strings.TrimSuffix(string(out), "\n")
	}
	if _, err := os.Stat(b.dir); err != nil {
		b.git("", "init", "-q", "--bare", "-b", "main")
	}
	rev := b.commit(b.tree(lines(b)...))
	b.git("", "update-ref", "refs/heads/main", string(rev))
	return rev
}

// commandAt runs git in a repository of the server.
func (e *elsewhere) commandAt(name string, args ...string) error {
	return command(e.t, e.root, filepath.Join(e.root, name), args...).Run()
}

func oneFile(text string) func(*bare) []string {
	return func(b *bare) []string { return []string{line("100644", "file", b.blob(text))} }
}

// modules is a .gitmodules of path, URL, path, URL ...
func modules(words ...string) string {
	var text strings.Builder
	for i := 0; i < len(words); i += 2 {
		fmt.Fprintf(&text, "[submodule %q]\n\tpath = %s\n\turl = %q\n", words[i], words[i], words[i+1])
	}
	return text.String()
}

// using is a tree with one submodule.
func using(url, path string, rev daeploy.Revision) func(*bare) []string {
	return func(b *bare) []string {
		return []string{line("100644", ".gitmodules", b.blob(modules(path, url))), line("160000", path, string(rev))}
	}
}

// fetch fetches the submodules of a commit of the app with these tree lines.
func (e *elsewhere) fetch(ctx context.Context, lines func(*bare) []string, wanted ...string) ([]daeploy.TreeEntry, error) {
	e.t.Helper()
	rev := e.commit(e.tree(lines(e.bare)...))
	e.came = nil
	return gitreceive.NewSubmodules(e.repos, e.config, e.limits).Fetch(ctx, "blog", rev, wanted, e.most, func(m daeploy.Submodule) error {
		e.came = append(e.came, m)
		return nil
	})
}

func paths(entries []daeploy.TreeEntry) []string {
	var all []string
	for _, e := range entries {
		all = append(all, e.Path)
	}
	return all
}

// wantError checks the code, and that the words reach the pusher.
func wantError(t *testing.T, err error, code string, parts ...string) {
	t.Helper()
	e, ok := errors.AsType[*daeploy.Error](err)
	if !ok || e.Code != code {
		t.Fatalf("the error is %v; want %s", err, code)
	}
	want(t, "the message", e.Message+"\n"+e.Hint, parts...)
}

// S4: a submodule and the one in it come at the recorded commits, over https;
// then nobody is asked again; the app's end is theirs.
func TestSubmodules(t *testing.T) {
	e := newElsewhere(t)
	inner := e.origin("inner.git", oneFile("inner"))
	e.origin("inner.git", oneFile("a later one"))
	lib := e.origin("lib.git", func(b *bare) []string {
		return append(using(e.server.URL("inner.git"), "in", inner)(b), line("120000", "link", b.blob("/etc/passwd")))
	})
	e.origin("lib.git", oneFile("a later one"))
	app := using(e.server.URL("lib.git"), "lib", lib)

	files, err := e.fetch(t.Context(), app, "lib")
	must(t, err)
	if diff := cmp.Diff([]string{"lib/.gitmodules", "lib/in", "lib/link", "lib/in/file"}, paths(files)); diff != "" {
		t.Errorf("the files (-want +got):\n%s", diff)
	}
	if len(e.came) != 2 || e.came[0].Path != "lib" || e.came[0].Took == 0 || e.came[0].Bytes == 0 || e.came[1].Path != "lib/in" || e.came[1].Commit != inner {
		t.Errorf("what came: %+v", e.came)
	}
	want(t, "the operator's log", e.audit.String(), "submodule fetched", "app=blog", "remote="+e.server.URL("inner.git"))

	asked := e.server.Requests.Load()
	_, err = e.fetch(t.Context(), app, "lib")
	must(t, err)
	if n := e.server.Requests.Load(); n != asked {
		t.Errorf("the second fetch asked %d times", n-asked)
	}
	if e.came[0].Took != 0 || e.came[0].Bytes != 0 {
		t.Errorf("what came the second time: %+v", e.came)
	}
	var mu sync.Mutex
	read := map[string]string{}
	must(t, gitreceive.NewSubmodules(e.repos, e.config, e.limits).Blobs(t.Context(), "blog", []daeploy.Revision{files[3].ID, files[2].ID}, func(i int, r io.Reader) error {
		text, err := io.ReadAll(r)
		mu.Lock()
		defer mu.Unlock()
		read[[]string{"file", "link"}[i]] = string(text)
		return err
	}))
	if diff := cmp.Diff(map[string]string{"file": "inner", "link": "/etc/passwd"}, read); diff != "" {
		t.Errorf("the bytes (-want +got):\n%s", diff)
	}
	must(t, e.repos.Delete(t.Context(), "blog"))
	left, err := os.ReadDir(e.bare.root)
	must(t, err)
	if len(left) > 0 {
		t.Errorf("%v is left of a deleted app", left)
	}
}

// S4: what is not listed, or no address, is skipped; nobody is asked.
func TestSubmoduleSkipped(t *testing.T) {
	e := newElsewhere(t)
	lib := e.origin("lib.git", oneFile("x"))
	for name, row := range map[string]struct{ url, why string }{
		"another port": {"https://127.0.0.1:1/lib.git", "127.0.0.1:1 is not a host that this server fetches from"},
		"another host": {"https://localhost/lib.git", "localhost is not a host"},
		"no entry":     {"", ".gitmodules names no URL for it"},
		"relative":     {"../lib.git", "its URL is relative"},
		"an option":    {"--upload-pack=touch /tmp/x", "its URL has characters"},
		"a command":    {"ext::sh", "neither https nor ssh"},
		"a file":       {"file://" + e.root + "/lib.git", "neither https nor ssh"},
		"no TLS":       {"http://" + e.server.Host + "/lib.git", "neither https nor ssh"},
		"no key":       {"ssh://git@" + e.server.Host + "/lib.git", "this server has no key for ssh"},
		"a password":   {"https://anna:geheim@other.test/lib.git", "other.test is not a host"},
	} {
		t.Run(name, func(t *testing.T) {
			files, err := e.fetch(t.Context(), using(row.url, "lib", lib), "lib")
			must(t, err)
			if len(files) > 0 || len(e.came) != 1 || !strings.Contains(e.came[0].Skipped, row.why) || strings.Contains(e.came[0].Skipped, "geheim") {
				t.Errorf("%v came, %+v; want %q", files, e.came, row.why)
			}
		})
	}
	files, err := e.fetch(t.Context(), using(e.server.URL("lib.git"), "lib", lib)) // not wanted
	must(t, err)
	if len(files)+len(e.came) > 0 {
		t.Errorf("%v came, %+v, of which nothing was wanted", files, e.came)
	}
	if n := e.server.Requests.Load(); n > 0 {
		t.Errorf("the server was asked %d times", n)
	}
}

// S3: .gitmodules tells the daemon whom to ask.
func TestGitmodulesUnsafe(t *testing.T) {
	e := newElsewhere(t)
	module := line("160000", "lib", strings.Repeat("12", 20))
	for name, entry := range map[string]func() string{
		"a symlink":   func() string { return line("120000", ".gitmodules", e.blob("other")) },
		"a directory": func() string { return line("40000", ".gitmodules", e.tree(line("100644", "x", e.blob("x")))) },
		"a submodule": func() string { return line("160000", ".gitmodules", strings.Repeat("12", 20)) },
		"large":       func() string { return line("100644", ".gitmodules", e.blob(strings.Repeat("#\n", 40_000))) },
		"no config":   func() string { return line("100644", ".gitmodules", e.blob("[submodule \"x")) },
	} {
		t.Run(name, func(t *testing.T) {
			_, err := e.fetch(t.Context(), func(*bare) []string { return []string{entry(), module} }, "lib")
			wantError(t, err, "source_unsafe", ".gitmodules")
		})
	}
}

// S4: submodules in submodules, five deep and no deeper.
func TestSubmodulesNested(t *testing.T) {
	e := newElsewhere(t)
	revs := []daeploy.Revision{e.origin("0.git", oneFile("the innermost"))}
	for i := 1; i <= 5; i++ {
		revs = append(revs, e.origin(fmt.Sprintf("%d.git", i), using(e.server.URL(fmt.Sprintf("%d.git", i-1)), "in", revs[i-1])))
	}
	files, err := e.fetch(t.Context(), using(e.server.URL("4.git"), "in", revs[4]), "in")
	must(t, err)
	if !slices.Contains(paths(files), "in/in/in/in/in/file") {
		t.Errorf("five deep: %v", paths(files))
	}
	_, err = e.fetch(t.Context(), using(e.server.URL("5.git"), "in", revs[5]), "in")
	wantError(t, err, "source_unsafe", `"in/in/in/in/in/in" is nested more than 5 deep`)
}

// S4: the limits hold for the commit and its submodules together.
func TestSubmodulesBudget(t *testing.T) {
	e := newElsewhere(t)
	lib := e.origin("lib.git", func(b *bare) []string {
		return []string{line("40000", "d", b.tree(line("100644", "a-long-file", b.blob("12345"))))}
	})
	app := using(e.server.URL("lib.git"), "lib", lib)
	size := int64(len(modules("lib", e.server.URL("lib.git"))))
	for name, row := range map[string]struct {
		most daeploy.TreeLimits
		want string
	}{
		"all fit":   {daeploy.TreeLimits{Files: 4, Bytes: size + 5, Depth: 3, PathLen: 17}, ""},
		"files":     {daeploy.TreeLimits{Files: 3}, "more than 3 files"},
		"bytes":     {daeploy.TreeLimits{Bytes: size + 4}, "the commit has more than"},
		"depth":     {daeploy.TreeLimits{Depth: 1}, "deeper than 1"},
		"path":      {daeploy.TreeLimits{PathLen: 16}, "has 17 bytes"},
		"name":      {daeploy.TreeLimits{NameLen: 3}, "the limit is 3"},
		"no limits": {daeploy.TreeLimits{}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			e.most = row.most
			_, err := e.fetch(t.Context(), app, "lib")
			if row.want != "" {
				wantError(t, err, "source_unsafe", row.want)
			} else {
				must(t, err)
			}
		})
	}
	e.most = daeploy.DefaultTreeLimits
	var many []string
	var words []string
	for i := range 101 {
		path := fmt.Sprintf("m%03d", i)
		words, many = append(words, path, e.server.URL("lib.git")), append(many, path)
	}
	_, err := e.fetch(t.Context(), func(b *bare) []string {
		lines := []string{line("100644", ".gitmodules", b.blob(modules(words...)))}
		for _, path := range many {
			lines = append(lines, line("160000", path, string(lib)))
		}
		return lines
	}, many...)
	wantError(t, err, "source_unsafe", "more than 100 submodules")
}

// S5: the names in a submodule are as unsafe as others.
func TestSubmoduleUnsafeName(t *testing.T) {
	e := newElsewhere(t)
	lib := e.origin("lib.git", func(b *bare) []string { return []string{line("100644", "git~1", b.blob("x"))} })
	_, err := e.fetch(t.Context(), using(e.server.URL("lib.git"), "lib", lib), "lib")
	if err == nil {
		t.Fatal("git~1 is accepted")
	}
}

// Passwords go to their host alone, by TLS, and into no log.
func TestSubmoduleCredentials(t *testing.T) {
	e := newElsewhere(t)
	lib := e.origin("lib.git", oneFile("x"))
	secret := "Basic " + base64.StdEncoding.EncodeToString([]byte("anna:geheim"))
	var mu sync.Mutex
	seen := map[string]bool{}
	e.server.SetBefore(func(w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		seen[r.Header.Get("Authorization")] = true
		if r.Header.Get("Authorization") == secret {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	url := e.server.URL("lib.git")
	_, err := e.fetch(t.Context(), using(url, "lib", lib), "lib")
	wantError(t, err, "submodule_unreachable", "could not be fetched")

	file := filepath.Join(t.TempDir(), "credentials")
	e.config.Credentials = file
	must(t, write(file, "https://anna:geheim@127.0.0.1\n")) // of another port
	_, err = e.fetch(t.Context(), using(url, "lib", lib), "lib")
	wantError(t, err, "submodule_unreachable", "could not be fetched")
	if seen[secret] {
		t.Error("the password of another port was shown")
	}
	must(t, write(file, "https://anna:geheim@"+e.server.Host+"\n"))
	_, err = e.fetch(t.Context(), using(url, "lib", lib), "lib")
	must(t, err)
	if text, err := os.ReadFile(file); err != nil || !strings.Contains(string(text), "geheim") {
		t.Errorf("the operator's file is now %q, %v", text, err)
	}
	// One in the URL wins, for it is the pusher's word: here a wrong one.
	other := e.origin("other.git", oneFile("y"))
	_, err = e.fetch(t.Context(), using("https://bea:wrong-word@"+e.server.Host+"/other.git", "lib", other), "lib")
	wantError(t, err, "submodule_unreachable", "could not be fetched")
	if text := e.audit.String() + fmt.Sprint(err); strings.Contains(text, "geheim") || strings.Contains(text, "wrong-word") {
		t.Errorf("a password is in %q", text)
	}
	e.config.Credentials = ""
	_, err = e.fetch(t.Context(), using("https://anna:geheim@"+e.server.Host+"/other.git", "lib", other), "lib")
	must(t, err)
}

// S4: over ssh, from a server that gives no commit by its id alone: this one.
func TestSubmoduleSSH(t *testing.T) {
	h := start(t)
	p := h.admin()
	w := p.work("lib")
	first := w.git("rev-parse", "HEAD")
	w.commit("second")
	w.git("push", "-q", "daeploy", "main")

	e := newElsewhere(t)
	key, err := gitreceive.OpenHostKey(h.state)
	must(t, err)
	_, port, _ := strings.Cut(h.addr, ":")
	known := filepath.Join(t.TempDir(), "known_hosts")
	must(t, write(known, fmt.Sprintf("[127.0.0.1]:%s %s\n", port, key.Public())))
	e.config = gitreceive.SubmoduleConfig{Hosts: []string{h.addr}, SSHKey: filepath.Join(p.home, "id"), KnownHosts: known}
	must(t, e.config.Check())
	url := "ssh://daeploy@" + h.addr + "/lib"
	files, err := e.fetch(t.Context(), using(url, "lib", daeploy.Revision(first)), "lib")
	must(t, err)
	if diff := cmp.Diff([]string{"lib/file"}, paths(files)); diff != "" {
		t.Errorf("the files (-want +got):\n%s", diff)
	}
	_, err = e.fetch(t.Context(), using(url, "lib", daeploy.Revision(strings.Repeat("12", 20))), "lib")
	wantError(t, err, "source_unsafe", "is not at "+url)

	must(t, write(known, "[127.0.0.1]:1 "+key.Public()+"\n"))
	w.commit("third")
	w.git("push", "-q", "daeploy", "main")
	_, err = e.fetch(t.Context(), using(url, "lib", daeploy.Revision(w.git("rev-parse", "HEAD"))), "lib")
	wantError(t, err, "submodule_unreachable", "Host key verification failed")
}

// Submodules of an app that is gone go at the next start.
func TestSubmoduleSweep(t *testing.T) {
	e := newElsewhere(t)
	for _, name := range []string{"blog.modules", "gone.modules", "Not Ours.modules"} {
		must(t, mkdir(filepath.Join(e.bare.root, name)))
	}
	_, err := e.repos.Sweep(t.Context())
	must(t, err)
	left, err := filepath.Glob(filepath.Join(e.bare.root, "*.modules"))
	must(t, err)
	if len(left) != 2 {
		t.Errorf("left are %v", left)
	}
}

// noise is text that no pack makes smaller.
func noise(n int) string {
	p := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n)}).Read(p) // it has no errors
	return string(p)
}
