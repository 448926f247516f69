package test_test

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/daeploy/daeploy/container/containertest"
)

// doRegistry is the word "registry" of stories:
//
//	registry start           $REGISTRY is its host, registry/ca.pem its authority, the file
//	                         password what its user anna says; again after stop
//	registry stop
//	registry password WORD   changes it there, not in the file
//	registry add NAME [USER] stores the stock builder under NAME; $DIGEST is its digest
//	registry slow NAME       starts another, by plain HTTP and without a password, as
//	                         $REGISTRY, that takes seconds to give the stock builder
//	registry get PATH        prints what it answers below /v2/
//	registry referrers REPOSITORY BUILD   prints the list of what lies beside a build's image
//	registry hold            starts another, by plain HTTP and without a password, as $REGISTRY,
//	                         that takes images, but never answers to the first blob
//	registry held            until it has not answered
func (t *teller) doRegistry(args []string) error {
	switch args[0] {
	case "start":
		return t.startRegistry()
	case "stop":
		return t.registry.Stop()
	case "password":
		return t.registry.SetPassword(args[1])
	case "add":
		image := stockBuilder()
		if len(args) > 2 {
			image.Config["User"] = args[2]
		}
		digest, err := t.registry.Add(t.TB, args[1], image)
		t.ts.Setenv("DIGEST", digest)
		return err
	case "slow":
		r := containertest.NewRegistry(t.TB)
		image := stockBuilder()
		// A layer that no other story has: containerd shares them.
		image.Layers = append(image.Layers, []containertest.File{{Path: "/slow", Content: rand.Text(), Mode: 0o600}})
		r.Add(t.TB, args[1], image)
		r.Before = trickle
		t.ts.Setenv("REGISTRY", r.Host)
		return nil
	case "get":
		return t.showRegistry("/v2/" + args[1])
	case "referrers":
		p, err := t.publication(args[2])
		if err != nil {
			return err
		}
		return t.showRegistry("/v2/" + args[1] + "/manifests/" + strings.Replace(p.Digest, ":", "-", 1))
	case "hold":
		d := containertest.NewDepot(t.TB)
		t.held = &atomic.Bool{}
		d.Before(func(_ http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodPut || t.held.Swap(true) {
				return false
			}
			// The end of a connection is noticed in its body, or behind all of that.
			if _, err := io.Copy(io.Discard, r.Body); err == nil {
				<-r.Context().Done()
			}
			return true
		})
		t.ts.Setenv("REGISTRY", d.Host)
		return nil
	case "held":
		return within(30*time.Second, func() error {
			if !t.held.Load() {
				return errors.New("nothing has been sent to the registry")
			}
			return nil
		})
	}
	return fmt.Errorf("registry %s?", args[0])
}

func (t *teller) showRegistry(path string) error {
	text, err := t.registry.Get(path)
	if err != nil {
		return err
	}
	if err := os.WriteFile(t.path("answer"), text, 0o600); err != nil {
		return err
	}
	return t.exec("cat", t.path("answer"))
}

type publication struct {
	Status, Digest string
	Attempts       int
}

func (t *teller) publication(id string) (publication, error) {
	var b struct{ Publication publication }
	text, err := t.ask("build", id, "--json")
	if err == nil {
		err = json.Unmarshal([]byte(text), &b)
	}
	return b.Publication, err
}

// doPublished waits until a build's publication has a status, after a number of
// attempts if that is named.
func (t *teller) doPublished(args []string) error {
	return within(60*time.Second, func() error {
		p, err := t.publication(args[0])
		if err == nil && (p.Status != args[1] || len(args) > 2 && strconv.Itoa(p.Attempts) != args[2]) {
			err = fmt.Errorf("the publication of %s is %s after %d attempts, want %q", args[0], p.Status, p.Attempts, args[1:])
		}
		return err
	})
}

func (t *teller) startRegistry() (err error) {
	if t.registry != nil {
		return t.registry.Start()
	}
	dir := t.path("registry")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if t.registry, err = containertest.NewDistribution(dir); err != nil {
		return err
	}
	t.ts.Setenv("REGISTRY", t.registry.Host)
	return os.WriteFile(t.path("password"), []byte(t.registry.Password+"\n"), 0o600)
}

// trickle holds the layers back long enough for two lines of progress.
func trickle(_ http.ResponseWriter, r *http.Request) bool {
	if strings.Contains(r.URL.Path, "/blobs/") {
		select {
		case <-time.After(2500 * time.Millisecond):
		case <-r.Context().Done():
		}
	}
	return false
}

// Secrets that others can read, and files that are not what they should be,
// keep the daemon from starting; no word of them is shown.
func TestRegistryConfig(t *testing.T) {
	for name, test := range map[string]struct {
		mode                  os.FileMode
		text, config, message string
	}{
		"password for all": {0o644, "geheim", "[registry.hosts.\"r.example.org\"]\nuser = \"u\"\npassword_file = %q", "has mode 0644"},
		"no user":          {0o600, "geheim", "[registry.hosts.\"r.example.org\"]\npassword_file = %q", "needs both user and password_file"},
		"docker for all":   {0o640, `{"auths": {"a.b": {"auth": "geheim"}}}`, "[registry]\ncredentials = %q", "has mode 0640"},
		"helpers":          {0o600, `{"credHelpers": {"a.b": "geheim"}}`, "[registry]\ncredentials = %q", "are programs, which are not run here"},
		"of systemd":       {0o644, `{"auths": {"a.b": {"auth": "geheim"}}}`, "# %s", "registry.json has mode 0644"},
		"unknown key":      {0o600, "geheim", "[registry.hosts.\"r.example.org\"]\npasword_file = %q", `did you mean "password_file"?`},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			secret, config := filepath.Join(dir, "registry.json"), filepath.Join(dir, "daeploy.toml")
			if err := os.WriteFile(secret, []byte(test.text), test.mode); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(config, fmt.Appendf(nil, test.config, secret), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), program, "serve", "--config", config)
			if name == "of systemd" {
				cmd.Env = append(os.Environ(), "CREDENTIALS_DIRECTORY="+dir)
			}
			out, _ := cmd.CombinedOutput() // the exit code tells
			if code := cmd.ProcessState.ExitCode(); code != 78 || !strings.Contains(string(out), test.message) || strings.Contains(string(out), "geheim") {
				t.Errorf("exit %d, %q; want 78 with %q", code, out, test.message)
			}
		})
	}
}
