package test_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/daeploy/daeploy/test/history"
)

// hostileBuild is what a script does besides its work, and how that ends.
type hostileBuild struct {
	row, name string
	does      string   // in sh
	codes     []string // one of which the build has failed by; nil if it is to succeed
	says      string   // in its message
}

// hostileBuilds are no friends of their host. Each limit is the one of TestHostileBuilds.
var hostileBuilds = []hostileBuild{
	{"F89", "children in sessions of their own that write on", `for i in 1 2 3; do setsid sh -c 'trap "" TERM HUP; while :; do echo beat >>/beat; done' & done; while [ ! -s /beat ]; do :; done`, nil, ""},
	{"F89", "a script that ignores signals and is silent", `trap "" TERM HUP INT; while :; do sleep 1; done`, []string{"build_timeout"}, "printed nothing"},
	{"F89", "a script that stops itself", `kill -STOP $$`, []string{"build_timeout"}, "printed nothing"},
	{"F90", "a fork bomb", `bomb() { bomb | bomb & }; bomb; sleep 2; exit 2`, []string{"assemble_failed", "build_timeout"}, "at the limit of 64 processes"},
	{"F90", "a hundred sleepers, waited for", `i=0; while [ $i -lt 100 ]; do sleep 1000 & i=$((i+1)); done; wait`, []string{"assemble_failed", "build_timeout"}, "at the limit of 64 processes"},
	{"F91", "more memory than there may be", `dd if=/dev/zero of=/dev/null bs=300M count=1 || exit 9`, []string{"out_of_memory"}, "128 MiB"},
	{"F91", "a file in memory", `dd if=/dev/zero of=/dev/shm/x bs=1M count=60; dd if=/dev/zero of=/dev/null bs=100M count=1; exit 1`, []string{"out_of_memory"}, "128 MiB"},
	{"F92", "one large file", `dd if=/dev/zero of=/large bs=1M count=200`, []string{"disk_limit"}, "of 64 MiB"},
	{"F92", "files without number", `i=0; while :; do : >/f$i; i=$((i+1)); done`, []string{"disk_limit"}, "of 5000 files"},
	{"F93", "output without end", `yes`, []string{"log_limit"}, "1.0 MiB"},
	{"F93", "a line of 900 KB", `head -c 900000 /dev/zero | tr '\0' x`, nil, ""},
	{"F94", "escape sequences, bidi, half characters", `printf '\033]8;;http://x\033\\\033]52;c;eA==\007\033[2J\302\233 \342\200\256 \r \010 \000 \342\200 \033['`, nil, ""},
	{"F95", "output that imitates us and git", `printf 'error: no\nhint: no\nremote: error: no\n> assemble  done\nsuccess: daeploy.local/blog:99 is ready\n000eunpack ok\n0019ok refs/heads/main\n0000'`, nil, ""},
	{"F98", "image metadata that is a pipe", `mkdir -p /tmp/.s2i; mkfifo /tmp/.s2i/image_metadata.json`, []string{"metadata_invalid"}, ""},
	{"F112", "metadata services, the host's loopback and its bridge", `for a in 169.254.169.254 0xa9fea9fe 127.0.0.1:22 100.100.100.200 $(ip route | sed -n 's/^default via \([0-9.]*\).*/\1/p'); do if wget -q -T 1 -O /dev/null http://$a/; then echo reached $a; exit 3; fi; done`, nil, ""},
	{"F114", "ways out of the container", `try() { if "$@" 2>/dev/null; then echo "this works: $*"; exit 3; fi; }
try mount -t tmpfs none /mnt; try mknod /tmp/disk b 8 0; try sh -c 'echo x >/proc/sys/kernel/core_pattern'; try sh -c 'echo 1 >/proc/sysrq-trigger'
try unshare -m true; try sh -c 'echo 0 >/sys/fs/cgroup/cgroup.procs'; try test -c /dev/kmsg; try sh -c ': >>/dev/init'; try chmod 777 /dev/init; try hostname other`, nil, ""},
	{"F115", "links, pipes, odd names and set-uid files in the result", `mkdir -p /app/odd; cd /app/odd; ln -s / out; ln -s /proc/1/root escape; mkfifo pipe; : >"$(printf 'a\nb')"; : >"$(printf '\033[31mx')"; cp /bin/sh suid; chmod 4755 suid; ln suid again; rm -rf /var; ln -s /proc /var`, nil, ""},
}

// TestHostileBuilds: F89 to F95, F98, F112, F114, F115 as a whole: each is built by the
// real daemon for its app, which holds the app to its reason; after each nothing is left,
// doctor finds nothing new, and the app's next push builds.
func TestHostileBuilds(t *testing.T) {
	k := newOrdealWith(t, strings.Replace(killConfig, "[build]", "[build]\nmemory = \"128MiB\"\npids = 64\ndisk = \"64MiB\"\ninodes = 5000\nlog = \"1MiB\"\nsilence = \"5s\"\ngrace = \"1s\"", 1), func(*story) {})
	h := k.newHand("blog", 1, k.seed, (*hand).push)
	h.prints = 1
	k.gate.open(k.port)
	h.write(0)
	h.send(history.Push)
	shown := map[string][]string{}
	most, next := 0.0, 2
	for _, tt := range hostileBuilds {
		began := time.Now()
		h.line = tt.does
		h.write(0)
		h.send(history.Push)
		id := fmt.Sprintf("blog/%d", next)
		next += 2
		var b history.Build
		if err := k.askJSON(&b, "build", id); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		switch {
		case tt.codes == nil && b.Status != "succeeded", tt.codes != nil && (b.Status != "failed" || !slices.Contains(tt.codes, b.Reason) || !strings.Contains(b.Message, tt.says)):
			log, _ := k.ask("logs", id) // nothing is said where it fails
			t.Errorf("%s: %s is %s, %s: %s; want %q with %q\n%.3000s", tt.name, id, b.Status, b.Reason, b.Message, tt.codes, tt.says, log)
		}
		if b.Status == "failed" {
			k.record.Add(history.Entry{Verb: history.Harm, Build: id}) // no fault of the daemon's
		}
		k.wantCleanLog(tt.name, id)
		if err := within(5*time.Second, k.residue); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if found := k.newFindings(); len(found) > 0 {
			t.Errorf("%s: doctor finds %q", tt.name, found)
		}
		h.line = ""
		h.write(0)
		h.send(history.Push)
		t.Logf("%s, %s: %s %s: %s (%.1f s)", tt.row, tt.name, b.Status, b.Reason, b.Message, time.Since(began).Seconds())
		shown[tt.row] = append(shown[tt.row], tt.name)
		most = max(most, k.mib("VmHWM"))
	}
	k.judge()
	if most > 100 {
		t.Errorf("the daemon had %.0f MiB at most", most)
	}
	did := func(row string) string { return strings.Join(shown[row], "; ") }
	t.Attr("F89", fmt.Sprintf("%s; a harmless push after each: that build alone ends, by name of what it did, or is built; the daemon had %.0f MiB at most", did("F89"), most))
	t.Attr("F90", fmt.Sprintf("%s; a harmless push after each: that build alone ends, by name of what it did, or is built; the daemon had %.0f MiB at most", did("F90"), most))
	t.Attr("F91", fmt.Sprintf("%s; a harmless push after each: that build alone ends, by name of what it did, or is built; the daemon had %.0f MiB at most", did("F91"), most))
	t.Attr("F92", fmt.Sprintf("%s; a harmless push after each: that build alone ends, by name of what it did, or is built; the daemon had %.0f MiB at most", did("F92"), most))
	t.Attr("F93", fmt.Sprintf("%s; a harmless push after each: that build alone ends, by name of what it did, or is built; the daemon had %.0f MiB at most", did("F93"), most))
	t.Attr("F94", fmt.Sprintf("%s; a harmless push after each: that build alone ends, by name of what it did, or is built; the daemon had %.0f MiB at most", did("F94"), most))
	t.Attr("F95", fmt.Sprintf("%s; a harmless push after each: that build alone ends, by name of what it did, or is built; the daemon had %.0f MiB at most", did("F95"), most))
	t.Attr("F98", fmt.Sprintf("%s; a harmless push after each: that build alone ends, by name of what it did, or is built; the daemon had %.0f MiB at most", did("F98"), most))
	t.Attr("F112", fmt.Sprintf("%s; a harmless push after each: that build alone ends, by name of what it did, or is built; the daemon had %.0f MiB at most", did("F112"), most))
	t.Attr("F114", fmt.Sprintf("%s; a harmless push after each: that build alone ends, by name of what it did, or is built; the daemon had %.0f MiB at most", did("F114"), most))
	t.Attr("F115", fmt.Sprintf("%s; a harmless push after each: that build alone ends, by name of what it did, or is built; the daemon had %.0f MiB at most", did("F115"), most))
}

// wantCleanLog looks for what no terminal is to get, and for lines of the app that
// could pass for the daemon's.
func (k *ordeal) wantCleanLog(name, id string) {
	k.Helper()
	log, err := k.ask("logs", id)
	if err != nil {
		k.Errorf("%s: %v", name, err)
	}
	for _, bad := range []string{"\x1b]", "\x1b[2J", "\x07", "\r", "\b", "\x00", "\u009b", "\u202e"} {
		if strings.Contains(log, bad) {
			k.Errorf("%s: the log of %s has %q", name, id, bad)
		}
	}
	for line := range strings.Lines(log) {
		for _, ours := range []string{"success: daeploy.local/blog:99", "error: no", "hint: no", "remote: ", "000eunpack"} {
			if strings.HasPrefix(line, ours) {
				k.Errorf("%s: the log of %s has the line %q", name, id, line)
			}
		}
	}
}
