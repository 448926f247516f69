package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/daeploy/daeploy"
)

// Checkup looks at containerd and what its containers need of this host. It
// answers within seconds, and changes nothing that stays.
func (e *Engine) Checkup(ctx context.Context) []daeploy.Finding {
	all := append(e.checkupContainerd(ctx), e.checkupDisk("disk", e.cfg.StateDir))
	if dir := e.diskDir(); dir != "" {
		all = append(all, e.checkupDisk("containerd's disk", dir))
	}
	all = append(all, checkupRunc(ctx), e.checkupInit(), checkupKernel(), checkupCgroups(), checkupSeccomp(), e.checkupNetwork(), e.checkupSecrets())
	return append(all, e.checkupIDs(ctx)...)
}

// checkupIDs tries anew what is taken as known between two absences of containerd.
// While it is away, which is told already, there is nothing to say.
func (e *Engine) checkupIDs(ctx context.Context) []daeploy.Finding {
	const check = "user namespaces"
	ids := e.rules.Load().IDs
	if !ids.any() {
		return []daeploy.Finding{daeploy.Fine(check, "containers have none, as user_ids says: root of one is root of the host, behind the other walls")}
	}
	missing, err := e.missingForIDs(ctx, ids, true)
	if err != nil {
		return nil
	}
	if missing != nil {
		why := daeploy.Public(missing, check)
		return []daeploy.Finding{daeploy.Doubt(check, "containers have none: "+why.Message, why.Hint+`; or set user_ids = "off"`)}
	}
	return []daeploy.Finding{daeploy.Fine(check, fmt.Sprintf("root of a container is %d here, and no user of it is one of this host's", ids.First))}
}

// The first releases of each line without the holes of stack.md, section 1.
var (
	mendedContainerd = []string{"2.2.5", "2.3.2"}
	mendedRunc       = []string{"1.3.6", "1.4.3", "1.5.0"}
)

func (e *Engine) checkupContainerd(ctx context.Context) []daeploy.Finding {
	const check = "containerd"
	c, err := e.connect()
	if err != nil {
		return []daeploy.Finding{daeploy.Fault(check, err)}
	}
	ask, cancel := context.WithTimeoutCause(ctx, answerTime, errSilent)
	defer cancel()
	v, err := c.Version(ask)
	if err != nil {
		return []daeploy.Finding{daeploy.Fault(check, explain(ctx, e.cfg.Address, err))}
	}
	all := []daeploy.Finding{judgeContainerd(v.Version)}
	select {
	case e.checking <- struct{}{}: // there is one snapshot to try with
		defer func() { <-e.checking }()
	case <-ctx.Done():
		return all
	}
	if err := e.checkSnapshots(ctx, c); err != nil {
		return append(all, daeploy.Fault("overlay", err))
	}
	all = append(all, daeploy.Fine("overlay", "snapshots have directories of their own, and keep trusted attributes"))
	return append(all, checkupRoot(e.diskDir()))
}

func judgeContainerd(version string) daeploy.Finding {
	const check = "containerd"
	if err := checkVersion(version); err != nil {
		return daeploy.Fault(check, err)
	}
	if !mended(version, mendedContainerd) {
		return daeploy.Doubt(check, version+" works, and has known holes unless the distribution has patched it",
			"apt-get install --only-upgrade containerd, or install "+strings.Join(mendedContainerd, ", ")+" or newer")
	}
	return daeploy.Fine(check, version)
}

// checkupRoot looks at the modes below containerd's root, which a snapshot's
// directory leads to: others may not walk in (CVE-2024-25621).
func checkupRoot(snapshot string) daeploy.Finding {
	const check = "containerd's root"
	root, _, ok := strings.Cut(snapshot, "/io.containerd.")
	if !ok {
		return daeploy.Fine(check, "is not known from "+snapshot)
	}
	info, err := os.Stat(root)
	if err != nil {
		return daeploy.Fault(check, err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return daeploy.Doubt(check, fmt.Sprintf("%s has mode %04o: users of this host can walk into it (CVE-2024-25621)", root, mode), "chmod 0700 "+root)
	}
	return daeploy.Fine(check, root+" is root's alone")
}

var runcVersion = regexp.MustCompile(`^runc version (\S+)`)

func checkupRunc(ctx context.Context) daeploy.Finding {
	const check = "runc"
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	out, err := exec.CommandContext(ctx, "runc", "--version").Output()
	if err != nil {
		return daeploy.Fault(check, hostError("runc does not run: "+err.Error(), "apt-get install runc"))
	}
	m := runcVersion.FindSubmatch(out)
	if m == nil {
		return daeploy.Doubt(check, "tells no version", "try: runc --version")
	}
	return judgeRunc(string(m[1]))
}

func judgeRunc(version string) daeploy.Finding {
	const check = "runc"
	switch {
	case olderThan(version, "1.1.5"):
		return daeploy.Fault(check, hostError("runc "+version+" is too old: builds could leave their container", "install 1.1.5 with the distribution's patches, or newer"))
	case !mended(version, mendedRunc):
		return daeploy.Doubt(check, version+" works, and has known holes unless the distribution has patched it",
			"apt-get install --only-upgrade runc, or install "+strings.Join(mendedRunc, ", ")+" or newer")
	}
	return daeploy.Fine(check, version)
}

// mended tells whether a version is at least the first good one of its line, or
// of the newest line.
func mended(version string, first []string) bool {
	for _, good := range first {
		if line := good[:strings.LastIndexByte(good, '.')+1]; strings.HasPrefix(strings.TrimPrefix(version, "v"), line) {
			return !olderThan(version, good)
		}
	}
	return !olderThan(version, first[len(first)-1])
}

// olderThan compares the numbers of two versions. One that is not made of numbers
// is below nothing: whoever built it knows.
func olderThan(version, than string) bool {
	a, ok := numbers(version)
	b, _ := numbers(than)
	return ok && slices.Compare(a, b) < 0
}

func numbers(version string) (parts []int, ok bool) {
	version, _, _ = strings.Cut(strings.TrimPrefix(version, "v"), "-")
	version, _, _ = strings.Cut(version, "~")
	version, _, _ = strings.Cut(version, "+")
	for word := range strings.SplitSeq(version, ".") {
		n, err := strconv.Atoi(word)
		if err != nil {
			return nil, false
		}
		parts = append(parts, n)
	}
	return parts, true
}

func (e *Engine) checkupInit() daeploy.Finding {
	if err := checkInit(e.cfg.Init); err != nil {
		return daeploy.Fault("init", err)
	}
	return daeploy.Fine("init", e.cfg.Init+" is a static program")
}

func checkupKernel() daeploy.Finding {
	const check = "kernel"
	if err := checkKernel(); err != nil {
		return daeploy.Fault(check, err)
	}
	return daeploy.Fine(check, kernelNeeded+" or newer")
}

func checkupCgroups() daeploy.Finding {
	const check = "cgroups"
	if err := checkCgroups(); err != nil {
		return daeploy.Fault(check, err)
	}
	if readHost().unified {
		return daeploy.Fine(check, "version 2")
	}
	return daeploy.Fine(check, "version 1: a build that runs out of memory loses one process, and is ended after it")
}

func checkupSeccomp() daeploy.Finding {
	const check = "seccomp"
	if err := checkSeccomp(); err != nil {
		return daeploy.Fault(check, err)
	}
	return daeploy.Fine(check, "the kernel has it")
}

func (e *Engine) checkupNetwork() daeploy.Finding {
	const check = "network"
	if len(e.cfg.Hook) == 0 {
		return daeploy.Fine(check, "containers have none")
	}
	return e.rules.Load().Network.Checkup(check, e.cfg.ResolvConf...)
}

func (e *Engine) checkupSecrets() daeploy.Finding {
	const check = "secrets directory"
	if _, err := os.Lstat(e.cfg.SecretsDir); errors.Is(err, fs.ErrNotExist) {
		return daeploy.Fine(check, e.cfg.SecretsDir+" is made when it is needed") // looking must not make it
	}
	if err := e.CheckSecrets(); err != nil {
		f := daeploy.Fault(check, err)
		f.Hint = "set secrets_dir to a directory on a tmpfs, as below /run; chmod 0700 " + e.cfg.SecretsDir
		return f
	}
	return daeploy.Fine(check, e.cfg.SecretsDir+" is on a tmpfs")
}
