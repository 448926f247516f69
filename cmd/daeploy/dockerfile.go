package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"strings"
	"time"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/buildpipeline"
	"github.com/daeploy/daeploy/control"
)

// printDockerfile is `dockerfile [DIR]`: it says as a Dockerfile what a build
// of this checkout would do. It reads files of the checkout and changes none.
func printDockerfile(ctx context.Context, socket string, words []string, std streams) error {
	flags := flag.NewFlagSet("dockerfile", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	values := map[string]*string{}
	for _, f := range control.DockerfileFlags {
		values[f.Name] = flags.String(f.Name, "", f.Usage)
	}
	if err := flags.Parse(words); err != nil || flags.NArg() > 1 {
		message := "dockerfile wants at most one directory"
		if err != nil {
			message = err.Error()
		}
		return &daeploy.Error{Kind: daeploy.Usage, Code: "usage", Message: message, Hint: "daeploy help dockerfile"}
	}
	dir := "."
	if flags.NArg() == 1 {
		dir = flags.Arg(0)
	}
	source, err := readCheckout(ctx, dir)
	if err != nil {
		return err
	}
	builder := buildpipeline.DockerBuilder{
		Ref: source.File.Builder, Written: source.File.Written,
		Scripts: *values["scripts"], AssembleUser: *values["user"], Owner: *values["owner"],
	}
	if word := *values["builder"]; word != "" {
		if builder.Ref, err = daeploy.ParseImageRef(word); err != nil {
			return &daeploy.Error{Kind: daeploy.Invalid, Code: "image_ref_invalid", Message: err.Error()}
		}
		builder.Written = word
	}
	if builder.Ref == "" {
		return &daeploy.Error{
			Kind: daeploy.Failure, Code: "no_builder", Message: "the checkout names no builder",
			Hint: "name it in .daeploy, or with --builder IMAGE",
		}
	}
	builder.Config = askConfig(ctx, socket, builder.Ref)
	if ref := source.File.Runtime.Image; ref != "" {
		builder.Runtime = &buildpipeline.DockerBuilder{Ref: ref, Written: string(ref), Config: askConfig(ctx, socket, ref)}
	}
	text, notices, err := buildpipeline.Dockerfile(builder, source)
	if err != nil {
		return err
	}
	for _, line := range notices {
		fmt.Fprintln(std.err, "warning:", line)
	}
	_, err = io.WriteString(std.out, text)
	return err
}

// askConfig has the daemon of this host tell the image's config; nil if there
// is no daemon, or no such image: then custom and flags have to do.
func askConfig(ctx context.Context, socket string, ref daeploy.ImageRef) []byte {
	if _, err := os.Stat(socket); err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var out strings.Builder
	code, err := ask(ctx, socket, []string{"builders", "show", string(ref), "--json"}, strings.NewReader(""), streams{in: os.Stdin, out: &out, err: io.Discard})
	if err != nil || code != 0 {
		return nil
	}
	var answer struct{ Config json.RawMessage }
	if json.Unmarshal([]byte(out.String()), &answer) != nil {
		return nil
	}
	return answer.Config
}

const (
	mostControlFile = 256 << 10 // bytes
	headBytes       = 512
)

// readCheckout reads what a build reads, from files in place of git objects. A
// link is refused here too (S3), whatever it points to.
func readCheckout(ctx context.Context, dir string) (c buildpipeline.Checkout, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return c, &daeploy.Error{Kind: daeploy.NotFound, Code: "directory_missing", Message: err.Error()}
	}
	defer root.Close()
	text, _, err := plainFile(root, ".daeploy", mostControlFile)
	if err != nil {
		return c, err
	}
	if c.File, err = buildpipeline.ParseAppFile(text); err != nil {
		return c, err
	}
	below := func(name string) string { return path.Join(c.File.ContextDir, name) }
	if info, err := root.Stat(path.Join(".", c.File.ContextDir)); err != nil || !info.IsDir() {
		return c, &daeploy.Error{
			Kind: daeploy.BuildFailed, Code: "context_dir_missing", Err: err,
			Message: fmt.Sprintf("context_dir %q is not a directory of this checkout", c.File.ContextDir),
		}
	}
	if text, _, err = plainFile(root, below(".s2i/environment"), mostControlFile+1); err != nil {
		return c, err
	}
	if c.Env, _, err = buildpipeline.ParseEnvironment(text); err != nil {
		return c, err
	}
	c.Hooks = map[string][]byte{}
	for _, at := range buildpipeline.HookPaths(c.File) {
		head, found, err := plainFile(root, below(at), headBytes)
		if err != nil {
			return c, err
		}
		if found {
			c.Hooks[at] = head
		}
	}
	if _, c.Ignore, err = plainFile(root, below(".s2iignore"), 0); err != nil {
		return c, err
	}
	c.Commit, c.Branch = lastCommit(ctx, dir)
	return c, nil
}

// plainFile reads at most most bytes of a file that no link leads to.
func plainFile(root *os.Root, name string, most int64) (text []byte, found bool, err error) {
	parts := strings.Split(name, "/")
	for i := range parts {
		at := strings.Join(parts[:i+1], "/")
		info, err := root.Lstat(at)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, false, nil
		}
		if err != nil {
			return nil, false, err
		}
		if last := i == len(parts)-1; last != info.Mode().IsRegular() || !last && !info.IsDir() {
			return nil, false, &daeploy.Error{
				Kind: daeploy.BuildFailed, Code: "source_unsafe", Message: fmt.Sprintf("%q is not a plain file or directory; that is not accepted", at),
				Hint: "commit it as a plain file or directory",
			}
		}
	}
	f, err := root.Open(name)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	text, err = io.ReadAll(io.LimitReader(f, most))
	return text, true, err
}

// lastCommit is what git says of the checkout; zero if it is no repository.
func lastCommit(ctx context.Context, dir string) (c daeploy.Commit, branch string) {
	git := func(words ...string) string {
		// Nothing that the repository's configuration names is to be run.
		cmd := exec.CommandContext(ctx, "git", append([]string{"-C", dir, "-c", "log.showSignature=false", "-c", "core.fsmonitor=false"}, words...)...)
		out, err := cmd.Output()
		if err != nil {
			return ""
		}
		return strings.TrimSuffix(string(out), "\n")
	}
	fields := strings.Split(git("log", "-1", "--no-show-signature", "--format=%H%x00%an <%ae>%x00%aI%x00%s"), "\x00")
	if len(fields) != 4 {
		return c, ""
	}
	authored, err := time.Parse(time.RFC3339, fields[2])
	if err != nil {
		return c, ""
	}
	return daeploy.Commit{ID: daeploy.Revision(fields[0]), Author: fields[1], Authored: authored, Subject: fields[3]},
		git("symbolic-ref", "--short", "-q", "HEAD")
}
