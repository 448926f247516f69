package containertest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"golang.org/x/sys/unix"
)

// Daemon is a private containerd. Its methods are for one goroutine.
type Daemon struct {
	Dir     string // all of it, removed by Stop
	Address string // of its socket

	// Namespace is one that no other containerd on this host uses: runc keeps
	// containers by namespace and name, whatever daemon they belong to.
	Namespace string

	cmd *exec.Cmd
}

const daemonConfig = `version = 2
root = %q
state = %q
disabled_plugins = [
  "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",
  "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.native",
  "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs",
]
[grpc]
address = %q
[ttrpc]
address = %q
`

// Start gives a test a containerd that ends with it. A machine that cannot run
// one fails the test: nothing is skipped.
func Start(t testing.TB) *Daemon {
	t.Helper()
	d, err := Launch()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Stop(); err != nil {
			t.Errorf("stop containerd: %v", err)
		}
	})
	return d
}

// StartNewer is Start with the containerd and runc of test/containerd.sh, which is
// named by its path. The test, and what it starts, find these programs first.
func StartNewer(t testing.TB, script string) *Daemon {
	t.Helper()
	cmd := exec.Command(script, "printenv", "PATH")
	cmd.Stderr = os.Stderr
	path, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	t.Setenv("PATH", strings.TrimSpace(string(path)))
	return Start(t)
}

// Launch is Start for a TestMain, which calls Stop.
func Launch() (*Daemon, error) {
	if os.Getenv("DAEPLOY_ISOLATED") != "1" || os.Geteuid() != 0 {
		return nil, errors.New("this test mounts and makes bridges: it wants root and namespaces of its own; run: make test")
	}
	for _, program := range []string{"containerd", "containerd-shim-runc-v2", "runc"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("this test wants %s: %w; run: make deps", program, err)
		}
	}
	dir, err := os.MkdirTemp("", "daeploy-containerd-")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o711); err != nil { // the root of a user namespace comes through here to its rootfs
		return nil, err
	}
	d := &Daemon{Dir: dir, Address: filepath.Join(dir, "containerd.sock"), Namespace: filepath.Base(dir)}
	config := fmt.Sprintf(daemonConfig, filepath.Join(dir, "root"), filepath.Join(dir, "state"), d.Address, d.Address+".ttrpc")
	if err := os.WriteFile(filepath.Join(dir, "config.toml"), []byte(config), 0o600); err != nil {
		return nil, err
	}
	if err := d.run(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return d, nil
}

// run starts the process and waits until it answers.
func (d *Daemon) run() error {
	log, err := os.OpenFile(filepath.Join(d.Dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	d.cmd = exec.Command("containerd", "--config", filepath.Join(d.Dir, "config.toml"))
	d.cmd.Stdout, d.cmd.Stderr = log, log
	if err := d.cmd.Start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	client, err := containerd.New(d.Address, containerd.WithTimeout(200*time.Millisecond))
	if err != nil {
		return err
	}
	defer client.Close()
	for {
		if _, err = client.Version(ctx); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			text, _ := os.ReadFile(log.Name())
			return fmt.Errorf("containerd does not answer: %w\n%s", err, text)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Kill ends containerd at once; tasks run on under their shims.
func (d *Daemon) Kill() error { return d.end(syscall.SIGKILL) }

// Restart ends containerd politely and starts it again.
func (d *Daemon) Restart() error {
	if err := d.end(syscall.SIGTERM); err != nil {
		return err
	}
	return d.run()
}

// Revive starts containerd again after Kill.
func (d *Daemon) Revive() error { return d.run() }

// Pause lets containerd hang; Resume wakes it. When it returns, every thread
// has stopped: the signal alone leaves time for an answer.
func (d *Daemon) Pause() error {
	if err := d.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	threads := fmt.Sprintf("/proc/%d/task", d.cmd.Process.Pid)
	for range 500 {
		running := false
		entries, err := os.ReadDir(threads)
		if err != nil {
			return err
		}
		for _, e := range entries {
			text, err := os.ReadFile(filepath.Join(threads, e.Name(), "status"))
			running = running || err == nil && !strings.Contains(string(text), "State:\tT")
		}
		if !running {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return errors.New("containerd does not stop")
}

// Resume ends Pause.
func (d *Daemon) Resume() error { return d.cmd.Process.Signal(syscall.SIGCONT) }

func (d *Daemon) end(sig syscall.Signal) error {
	if err := d.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	err := d.cmd.Wait()
	if errors.As(err, new(*exec.ExitError)) {
		return nil
	}
	return err
}

// Stop ends all tasks and containerd, and removes what they had mounted and
// stored.
func (d *Daemon) Stop() error {
	return errors.Join(d.endTasks(), d.end(syscall.SIGTERM), unmountBelow(d.Dir), os.RemoveAll(d.Dir))
}

func (d *Daemon) endTasks() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	client, err := containerd.New(d.Address)
	if err != nil {
		return err
	}
	defer client.Close()
	spaces, err := client.NamespaceService().List(ctx)
	if err != nil {
		return err
	}
	for _, space := range spaces {
		in, err := containerd.New(d.Address, containerd.WithDefaultNamespace(space))
		if err != nil {
			return err
		}
		defer in.Close()
		containers, err := in.Containers(ctx)
		if err != nil {
			return err
		}
		for _, c := range containers {
			if task, err := c.Task(ctx, nil); err == nil {
				if _, err := task.Delete(ctx, containerd.WithProcessKill); err != nil {
					return fmt.Errorf("end task %s: %w", c.ID(), err)
				}
			}
		}
	}
	return nil
}

// unmountBelow unmounts everything below dir, innermost first.
func unmountBelow(dir string) error {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var points []string
	for line := range strings.Lines(string(table)) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			points = append(points, fields[4])
		}
	}
	slices.Reverse(points)
	var errs []error
	for _, point := range points {
		errs = append(errs, os.NewSyscallError("unmount "+point, unix.Unmount(point, unix.MNT_DETACH)))
	}
	return errors.Join(errs...)
}
