package test_test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy/container/containertest"
)

// outputCases are about labels and users: C42 to C44.
var outputCases = []conformanceCase{
	{42, "image_metadata.json: valid; bad JSON; empty; a link; a number as value; commit.id; 11 000 bytes", "S120-S122", []part{
		{"valid", func(c *trial) {
			p := c.app("b1", metadata(`{"labels":[{"io.k8s.description":"mine"},{"a":"b","c":"d"}]}`)).push().succeeds()
			got := p.config.Labels
			if got["io.k8s.description"] != "mine" || got["a"] != "b" || got["c"] != "d" {
				c.Errorf("labels: %v", got)
			}
		}},
		{"no labels", func(c *trial) { c.app("b1", metadata(`{"other":1}`)).push().succeeds() }},
		{"bad JSON", func(c *trial) { c.app("b1", metadata(`{"labels":`)).push().fails("metadata_invalid") }},
		{"empty", func(c *trial) { c.app("b1", describing(": >"+metadataFile)).push().fails("metadata_invalid") }},
		{"link", func(c *trial) {
			c.app("b1", describing("echo '{}' >/tmp/real; ln -s /tmp/real "+metadataFile)).push().fails("metadata_invalid")
		}},
		{"number", func(c *trial) { c.app("b1", metadata(`{"labels":[{"a":1}]}`)).push().fails("metadata_invalid") }},
		{"vouched", func(c *trial) {
			b := c.app("b1", metadata(`{"labels":[{"io.openshift.s2i.build.commit.id":"forged","org.opencontainers.image.title":"forged","a":"b"}]}`)).push()
			got := b.says("warning:", "io.openshift.s2i.build.commit.id").succeeds().config.Labels
			if got["io.openshift.s2i.build.commit.id"] != b.Commit || got["org.opencontainers.image.title"] != b.app || got["a"] != "b" {
				c.Errorf("labels: %v", got)
			}
		}},
		{"too large", func(c *trial) {
			c.app("b1", metadata(`{"labels":[{"big":"`+strings.Repeat("x", 11000)+`"}]}`)).push().fails("labels_too_large", "10240", "big")
		}},
	}},
	{43, "author, subject of 100 columns, control characters, offset +0530", "S118 S119", []part{{"labels", caseLabels}}},
	{44, "S132; a named user with and without policy; faulty ranges", "S131-S133", []part{
		{"policy", caseAllowedUsers},
		{"unknown name", func(c *trial) {
			c.app(c.imported(reporting(stockDir, user("nobody-here", ""))), text).push().refuses("user_unknown", "nobody-here")
		}},
		{"unknown group", func(c *trial) {
			c.app(c.imported(reporting(stockDir, user("0:nobody-here", ""))), text).push().refuses("user_unknown", "nobody-here")
		}},
		{"faulty ranges", func(c *trial) {
			for _, ranges := range []string{"", "-", "1,,2", "4-5-1", "-1-5", "5-1", "root"} {
				s := newStory(c, c.TempDir())
				s.builders = true
				if err := s.serve(fmt.Sprintf("allowed_uids = %q\n", ranges)); err == nil || !strings.Contains(err.Error(), "allowed_uids") || strings.Contains(err.Error(), "unknown key") {
					c.Errorf("allowed_uids = %q: %v", ranges, err)
				}
				c.must(s.end(9))
			}
		}},
	}},
}

func caseLabels(c *trial) {
	subject := "Fix\tthe cart \x01" + strings.Repeat("x", 100)
	r := c.app("b1", text)
	r.git("add", "-A")
	r.git("-c", "user.name=Anna \xc3\x85\x7f", "commit", "-q", "--cleanup=verbatim", "-m", subject+"\n\nBody")
	b := r.pushed("main")
	p := b.succeeds()
	want := map[string]string{
		"io.openshift.s2i.build.image":         imageName("b1"),
		"io.openshift.s2i.build.commit.id":     b.Commit,
		"io.openshift.s2i.build.commit.ref":    "main",
		"io.openshift.s2i.build.commit.author": "Anna \u00c5  <anna@example.org>",
		"io.openshift.s2i.build.commit.date":   commitTime,
		// Tab and control character count as columns, and are blanks.
		"io.openshift.s2i.build.commit.message":  "Fix the cart  " + strings.Repeat("x", 64) + "..",
		"io.openshift.s2i.build.source-location": publicURL + r.app,
		"io.openshift.s2i.scripts-url":           "image://" + stockDir,
		"io.k8s.display-name":                    r.app,
		"org.opencontainers.image.revision":      b.Commit,
		"org.opencontainers.image.source":        publicURL + r.app,
		"org.opencontainers.image.title":         r.app,
		"org.opencontainers.image.version":       "1",
		"org.opencontainers.image.created":       "2026-07-22T08:04:51Z",
		"org.opencontainers.image.base.name":     imageName("b1"),
		"org.opencontainers.image.base.digest":   p.config.Labels["org.opencontainers.image.base.digest"],
	}
	if diff := cmp.Diff(want, p.config.Labels); diff != "" {
		c.Errorf("labels (-want +got):\n%s", diff)
	}
	for name, value := range want {
		if strings.HasPrefix(name, "org.") && p.manifest.Annotations[name] != value {
			c.Errorf("annotation %s is %q, want %q", name, p.manifest.Annotations[name], value)
		}
	}
	if got := p.raw["created"]; got != "2026-07-22T08:04:51Z" {
		c.Errorf("created is %v", got)
	}
}

func caseAllowedUsers(c *trial) {
	c.with("allowed_uids = \"1-\"\n", "")
	for name, fits := range map[string]bool{"b5": true, "b6": false, "b7": true, "b8": false, "b9": true, "b1": false} {
		b := c.app(name, text).push()
		if fits {
			b.succeeds()
		} else {
			b.refuses("user_not_allowed", "1-")
		}
	}
	c.app(c.imported(reporting(stockDir, user("5:5000", ""))), text).push().succeeds()
}

// limitCases are about walls: C45 and C46.
var limitCases = []conformanceCase{
	{45, "B5 with limits; fork bomb; memory hog; endless file; endless log; sleep; a value above the cap", "S40 S136", []part{{"limits", caseLimits}}},
	{46, "the network as it is; none; the host's loopback listener", "S135", []part{
		{"default", caseNetwork},
		{"none", func(c *trial) {
			c.with("", "[network]\nmode = \"none\"\n")
			b := c.app("b1", script(".s2i/bin/assemble", "#!/bin/sh\nip -o link | grep -v ' lo:' || echo alone\n")).push()
			b.succeeds()
			c.prints(b.raw(), "alone")
		}},
	}},
}

const limitsText = `
[build]
memory = "64MiB"
max_memory = "96MiB"
cpus = 0.5
max_cpus = 1.0
timeout = "3s"
max_timeout = "20s"
grace = "1s"
pids = 32
disk = "8MiB"
log = "1MiB"
`

func caseLimits(c *trial) {
	c.with("", limitsText)
	const show = `#!/bin/sh
cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes
cat /sys/fs/cgroup/cpu.max 2>/dev/null || echo $(cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us) 100000
`
	r := c.app("b5", script(".s2i/bin/assemble", show))
	r.write(r.daeploy("b5", "[build]\nmemory = \"1GiB\"\ntimeout = \"15s\"\n"))
	b := r.push()
	b.says("warning: [build] memory is 96 MiB here").succeeds()
	if diff := cmp.Diff(fmt.Sprintf("%d\n50000 100000\n", 96<<20), b.raw()); diff != "" {
		c.Errorf("limits seen (-want +got):\n%s", diff)
	}
	for _, tt := range []struct{ words, code, said string }{
		{"bomb() { bomb | bomb & }; bomb; i=0; while [ $i -lt 100 ]; do sleep 60 & i=$((i+1)); done; echo survived", "assemble_failed", ""},
		{"exec dd if=/dev/zero of=/dev/null bs=200M count=1", "out_of_memory", "64 MiB"},
		{"exec dd if=/dev/zero of=/tmp/big bs=1M", "disk_limit", "8.0 MiB"},
		{"exec yes", "log_limit", "1.0 MiB"},
		{"exec sleep 60", "build_timeout", "[build] timeout can go up to 20s"},
	} {
		b := c.app("b5", script(".s2i/bin/assemble", "#!/bin/sh\n"+tt.words+"\n")).push()
		b.fails(tt.code, tt.said)
		c.nothingRuns(b)
	}
}

// caseNetwork wants an address of the world to answer, and the host not to.
func caseNetwork(c *trial) {
	c.plugWorld()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	c.must(err)
	defer l.Close()
	go greet(l)
	_, port, _ := net.SplitHostPort(l.Addr().String())
	probe := "#!/bin/sh\ntry() { echo \"$1 $(nc -w 2 $2 $3 </dev/null 2>/dev/null)\"; }\ntry world " + world + " 80\ntry loopback 127.0.0.1 " + port +
		"\ntry gateway $(ip route | sed -n 's/^default via \\([^ ]*\\).*/\\1/p') " + port + "\ntry ours " + ourselves + " " + port + "\n"
	b := c.app("b1", script(".s2i/bin/assemble", probe)).push()
	b.succeeds()
	if diff := cmp.Diff("world hello\nloopback \ngateway \nours \n", b.raw()); diff != "" {
		c.Errorf("reached (-want +got):\n%s", diff)
	}
}

func greet(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		fmt.Fprintln(conn, "hello")
		conn.Close()
	}
}

// The world: a network namespace behind a cable.
const (
	world     = "198.51.100.53"
	ourselves = "198.51.100.1"
)

func (c *trial) plugWorld() {
	c.Helper()
	cmd := exec.Command("unshare", "--net", "sh", "-c", "echo ready; read go; ip link set lo up; ip link set cable1 up; ip addr add "+world+
		"/24 dev cable1; ip route add default via "+ourselves+"; echo up; exec busybox nc -ll -p 80 -e echo hello")
	in, err := cmd.StdinPipe()
	c.must(err)
	out, err := cmd.StdoutPipe()
	c.must(err)
	c.must(cmd.Start())
	c.Cleanup(func() {
		err := errors.Join(cmd.Process.Kill(), in.Close())
		_ = cmd.Wait() // killed
		c.must(err)
	})
	lines := bufio.NewReader(out)
	hear := func(want string) {
		c.Helper()
		if line, err := lines.ReadString('\n'); err != nil || line != want {
			c.Fatalf("the world says %q, %v", line, err)
		}
	}
	hear("ready\n")
	for _, words := range []string{
		fmt.Sprintf("link add cable0 type veth peer name cable1 netns %d", cmd.Process.Pid), "addr add " + ourselves + "/24 dev cable0", "link set cable0 up",
	} {
		if out, err := exec.Command("ip", strings.Fields(words)...).CombinedOutput(); err != nil {
			c.Fatalf("ip %s: %v: %s", words, err, out)
		}
	}
	fmt.Fprintln(in, "go")
	hear("up\n")
}

// runtimeCases are about runtime images: C47 and C48.
var runtimeCases = []conformanceCase{
	{47, "B1 and R1; artifacts by label, by .daeploy, all of S105", "S14 S15 S101-S110", []part{
		{"by label", func(c *trial) {
			b := c.app("b1", leaving, c.runtime("r1", "")).push()
			p := b.succeeds()
			p.want(map[string]string{
				"/srv/artifact": `-rw-r--r-- 1001:0 "made"`, "/srv/lib/dir": "drwxr-xr-x 1001:0", "/srv/lib/dir/tool": `-rwxr-xr-x 1001:0 "made"`,
				"/srv/assembled": `-rw-r--r-- 1001:0 ""`, "/app": "nothing", "/tmp/src": "nothing", "/bin/report": "nothing",
			})
			c.prints(b.raw(), "assemble-runtime as 1001 in /srv")
			c.command(p, "/usr/runtime/run")
			if got := p.config.Labels; got["io.openshift.s2i.build.image"] != imageName("b1") || got["org.opencontainers.image.base.name"] != imageName("r1") {
				c.Errorf("labels: %v", got)
			}
		}},
		{"by .daeploy", func(c *trial) {
			list := "artifacts = [\"/app/artifact\", \"/app/artifact:app/dist\", \"/app/v-0.1:v.war\", \"/app/dir/\"]\n"
			p := c.app("b1", leaving, c.runtime("r1", list)).push().succeeds()
			p.want(map[string]string{
				"/srv/artifact": `-rw-r--r-- 1001:0 "made"`, "/srv/app/dist/artifact": `-rw-r--r-- 1001:0 "made"`,
				"/srv/v.war/v-0.1": `-rw-r--r-- 1001:0 "made"`, "/srv/dir/tool": `-rwxr-xr-x 1001:0 "made"`,
			})
		}},
		{"dot", func(c *trial) {
			p := c.app("b1", leaving, c.runtime("r1", "artifacts = [\"/app/artifact:.\"]\n")).push().succeeds()
			p.want(map[string]string{"/srv/artifact": `-rw-r--r-- 1001:0 "made"`, "/srv/lib": "nothing"})
		}},
	}},
	{48, "B1 and R2 with and without a run hook; artifacts missing, relative, .., wildcard, twice, a symlink", "S102-S108", []part{
		{"hook", func(c *trial) {
			b := c.app("b1", leaving, hookRun, c.runtime("r2", list("/app/artifact"))).push()
			c.command(b.succeeds(), "/srv/scripts/run")
			c.prints(b.started(), "the hook's run")
		}},
		{"no run", func(c *trial) {
			c.app("b1", leaving, c.runtime("r2", list("/app/artifact"))).push().refuses("runtime_no_run", "add", ".s2i/bin/run")
		}},
		{"missing", func(c *trial) {
			c.app("b1", leaving, hookRun, c.runtime("r2", list("/app/absent"))).push().fails("runtime_artifact_missing", "/app/absent")
		}},
		{"no list", func(c *trial) { c.artifactsInvalid() }},
		{"relative", func(c *trial) { c.artifactsInvalid("app/artifact") }},
		{"outside", func(c *trial) { c.artifactsInvalid("/app/artifact:../x") }},
		{"wildcard", func(c *trial) { c.artifactsInvalid("/app/*") }},
		{"twice", func(c *trial) {
			c.app("b1", leaving, hookRun, c.runtime("r2", list("/app/artifact", "/app/dir/../artifact"))).push().fails("runtime_artifacts_invalid")
		}},
		{"symlink", func(c *trial) {
			p := c.app("b1", leaving, hookRun, c.runtime("r2", list("/app/link"))).push().succeeds()
			p.want(map[string]string{"/srv/link": "lrwxrwxrwx 0:0 -> /etc/passwd"})
		}},
	}},
}

var leaving containertest.File = script(".s2i/bin/assemble", "#!/bin/sh\nset -e\ncd /app\nmkdir dir\nfor f in artifact v-0.1 dir/tool; do printf made >$f; done\nchmod 0711 dir/tool\nchmod 0600 artifact\nln -s /etc/passwd link\n")

func list(items ...string) string {
	return fmt.Sprintf("artifacts = [\"%s\"]\n", strings.Join(items, `", "`))
}

func (c *trial) artifactsInvalid(items ...string) {
	c.Helper()
	more := ""
	if len(items) > 0 {
		more = list(items...)
	}
	c.app("b1", leaving, hookRun, c.runtime("r2", more)).push().refuses("runtime_artifacts_invalid")
}
