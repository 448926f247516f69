package container_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	containerd "github.com/containerd/containerd/v2/client"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container"
	"github.com/daeploy/daeploy/container/containertest"
)

const secretValue = "correct horse battery"

// withSecrets is a script of user 1001 that has secrets.
func withSecrets(lines ...string) daeploy.Process {
	p := script(lines...)
	p.User, p.Secrets = daeploy.Owner{UID: 1001, GID: 50}, map[string][]byte{"token": []byte(secretValue), "key.bin": []byte("\x00\xff")}
	return p
}

// S40, S74: files of the user's alone on a read-only tmpfs, whatever the image
// has there; nothing of them is on the host once the process runs.
func TestSecretMounts(t *testing.T) {
	var dir string
	e := newEngine(t, func(c *container.Config) { dir = c.SecretsDir })
	ref := imported(t, e, containertest.Image{Shell: true, Layers: [][]containertest.File{{
		{Path: "/run/secrets", Dir: true}, {Path: "/run/secrets/of-the-image", Content: "x"},
	}}})
	w, base := workspace(t, e, ref)
	run(t, w, script("true"))
	_, plain, err := w.Commit(t.Context(), daeploy.Output{Name: "daeploy.local/blog:8", Base: base, Config: base.Config, Created: containertest.Epoch})
	must(t, err)

	w, base = workspace(t, e, ref)
	must(t, w.Start(t.Context(), withSecrets(
		`stat -c "%n %u:%g %a %s" /run/secrets /run/secrets/*`,
		`grep " /run/secrets" /proc/self/mountinfo | sed "s/.* - //" | cut -d " " -f 1 | sort -u`,
		`cat /run/secrets/token; echo`,
		`for f in new token; do echo x 2>/dev/null >/run/secrets/$f && echo written; done`,
		`rm -f /run/secrets/token 2>/dev/null && echo removed`,
		`echo ready; sleep 60`,
	)))
	if left, err := filepath.Glob(filepath.Join(dir, "*", "*")); err != nil || len(left) > 0 {
		t.Errorf("on the host while the process runs: %q, %v", left, err)
	}
	if text := specOf(t, w); strings.Contains(text, secretValue) {
		t.Error("the secret is in containerd's record of the container")
	}
	var out bytes.Buffer
	_, err = w.Wait(t.Context(), daeploy.Limits{}, 0, func(p []byte, _ int64) error {
		out.Write(p)
		if bytes.HasSuffix(out.Bytes(), []byte("ready\n")) {
			return errEnough
		}
		return nil
	})
	want := "/run/secrets 0:0 755 80\n/run/secrets/key.bin 1001:50 400 2\n/run/secrets/token 1001:50 400 21\ntmpfs\n" + secretValue + "\nready\n"
	if diff := cmp.Diff(want, out.String()); !errors.Is(err, errEnough) || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	image, layer, err := w.Commit(t.Context(), daeploy.Output{Name: "daeploy.local/blog:9", Base: base, Config: base.Config, Created: containertest.Epoch})
	if err != nil || layer.Entries != plain.Entries {
		t.Errorf("the layer has %d entries, %v; one without secrets has %d", layer.Entries, err, plain.Entries)
	}
	if bytes.Contains(image.Config, []byte("secret")) {
		t.Errorf("the config tells of secrets: %s", image.Config)
	}
}

var errEnough = errors.New("enough")

// specOf is all that containerd keeps of the container.
func specOf(t *testing.T, w *container.Workspace) string {
	t.Helper()
	client, err := containerd.New(shared.Address, containerd.WithDefaultNamespace(shared.Namespace))
	must(t, err)
	defer client.Close()
	list, err := client.ContainerService().List(t.Context())
	must(t, err)
	text := ""
	for _, c := range list {
		text += fmt.Sprint(c.Labels, string(c.Spec.GetValue()), c.Extensions)
	}
	if !strings.Contains(text, "/run/secrets/token") {
		t.Fatalf("no container of %v binds the secret", w)
	}
	return text
}

// A link on the way would let the image choose what the tmpfs hides.
func TestSecretsBehindALink(t *testing.T) {
	e := newEngine(t)
	for name, link := range map[string]string{"above": "/run", "itself": "/run/secrets"} {
		w, _ := workspace(t, e, imported(t, e, containertest.Image{
			Name: "daeploy.local/builders/secretlink:1", Shell: true, Layers: [][]containertest.File{{{Path: link, Link: "/etc"}}},
		}))
		err := w.Start(t.Context(), withSecrets("true"))
		if e := daeploy.Public(err, ""); err == nil || e.Code != "builder_invalid" {
			t.Errorf("%s: Start: %v, want builder_invalid", name, err)
		}
	}
}

// What a daemon left that died between the files and the start, or right after
// it, the next one removes.
func TestSecretsLeftByACrash(t *testing.T) {
	var cfg container.Config
	e := newEngine(t, func(c *container.Config) { cfg = *c })
	w, _ := workspace(t, e, imported(t, e, containertest.Image{Shell: true}))
	id := daeploy.BuildID{App: "blog", Number: builds.Load()}
	leave := func() string {
		dir := filepath.Join(cfg.SecretsDir, cfg.Owner, id.Host())
		must(t, os.MkdirAll(dir, 0o700))
		must(t, os.WriteFile(filepath.Join(dir, "token"), []byte(secretValue), 0o400))
		return dir
	}
	gone := func(when, dir string) {
		t.Helper()
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("%s the secrets are still there: %v", when, err)
		}
	}
	must(t, w.Start(t.Context(), withSecrets("true")))
	dir := leave()
	if _, err := w.Wait(t.Context(), daeploy.Limits{}, 0, collect(&bytes.Buffer{})); err != nil {
		t.Fatal(err)
	}
	gone("when the process was waited for,", dir)
	leave()
	if out, _ := run(t, w, withSecrets("cat /run/secrets/token")); out != secretValue {
		t.Errorf("a second start gives %q", out)
	}
	must(t, w.Close(t.Context()))
	leave()
	ids, err := e.Leftovers(t.Context())
	if diff := cmp.Diff([]daeploy.BuildID{id}, ids); err != nil || diff != "" {
		t.Errorf("Leftovers: %v (-want +got):\n%s", err, diff)
	}
	must(t, w.Close(t.Context()))
	gone("when the build was closed,", dir)
}

// Nothing is written where it could reach a disk, or where others can look.
func TestSecretsNeedATmpfs(t *testing.T) {
	disk := t.TempDir()
	for name, change := range map[string]func(*container.Config){
		"none":  func(c *container.Config) { c.SecretsDir = "" },
		"disk":  func(c *container.Config) { c.SecretsDir = filepath.Join(disk, "secrets") },
		"open":  func(c *container.Config) { must(t, os.Mkdir(filepath.Join(c.SecretsDir, c.Owner), 0o755)) },
		"alien": func(c *container.Config) { must(t, os.Symlink(disk, filepath.Join(c.SecretsDir, c.Owner))) },
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t, change)
			w, _ := workspace(t, e, imported(t, e, containertest.Image{Shell: true}))
			for _, err := range []error{e.CheckSecrets(), w.Start(t.Context(), withSecrets("true"))} {
				if e := daeploy.Public(err, ""); err == nil || e.Kind != daeploy.Config || e.Code != "secrets_dir_unusable" || strings.Contains(e.Message+e.Hint, disk) {
					t.Errorf("%v, want secrets_dir_unusable without a path", err)
				}
			}
			if out, _ := run(t, w, script("echo runs")); out != "runs\n" {
				t.Errorf("a process without secrets says %q", out)
			}
		})
	}
	if left, err := filepath.Glob(filepath.Join(disk, "*", "*", "*")); err != nil || len(left) > 0 {
		t.Errorf("written to the disk: %q, %v", left, err)
	}
}
