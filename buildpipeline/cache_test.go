package buildpipeline_test

import (
	"encoding/json"
	"path"
	"strings"
	"testing"

	"github.com/daeploy/daeploy/buildpipeline"
)

// cacheConfig is an image config with the label.
func cacheConfig(t testing.TB, label string) []byte {
	t.Helper()
	text, err := json.Marshal(map[string]any{"config": map[string]any{
		"WorkingDir": "/srv/app", "Labels": map[string]string{
			"io.daeploy.cache": label, "io.openshift.s2i.destination": "/opt/dest", "io.openshift.s2i.scripts-url": "image:///usr/libexec/s2i",
		},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestCacheLabel(t *testing.T) {
	for label, want := range map[string]string{
		"":                        "",
		"/var/cache/app":          "/var/cache/app",
		" /var/cache//app/./pip/": "/var/cache/app/pip",
		"/cache":                  "/cache",
		"/srv/app/.cache":         "/srv/app/.cache",
		"/opt/dest/cache":         "/opt/dest/cache",
		"/opt/dest/srcs":          "/opt/dest/srcs",
		"/tmp/cache":              "/tmp/cache",
		"/procs":                  "/procs",

		strings.Repeat("/a", 129): "it is 129 directories deep; at most 128 are allowed",

		"var/cache":              "it is no absolute path",
		"/var/../cache":          "it is no absolute path",
		"/var/cache\n/etc":       "it is no absolute path",
		"/var/c\u00e4che":        "it is no absolute path",
		"/" + long(1024):         "it is no absolute path",
		"/":                      "it would hide /opt/dest/src",
		"/opt":                   "it would hide /opt/dest/src",
		"/srv/app":               "it would hide /srv/app",
		"/srv":                   "it would hide /srv/app",
		"/usr/libexec":           "it would hide /usr/libexec/s2i",
		"/tmp":                   "it would hide /tmp",
		"/bin":                   "it would hide /bin",
		"/opt/dest/src":          "/opt/dest/src is not for caches",
		"/opt/dest/src/x":        "/opt/dest/src is not for caches",
		"/opt/dest/scripts/x":    "/opt/dest/scripts is not for caches",
		"/opt/dest/artifacts":    "/opt/dest/artifacts is not for caches",
		"/proc/self/fd/7":        "/proc is not for caches",
		"/sys/fs/cgroup":         "/sys is not for caches",
		"/dev/shm":               "/dev is not for caches",
		"/run/secrets":           "/run is not for caches",
		"/etc/ssl":               "/etc is not for caches",
		"//etc/./resolv.conf":    "/etc is not for caches",
		"/var/cache/\x00/../etc": "it is no absolute path",
	} {
		at, err := buildpipeline.CachePath(cacheConfig(t, label))
		got := at
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("label %.40q: %q, want %q", label, got, want)
		}
	}
}

func long(n int) string { return strings.Repeat("x", n) }

// A path that passes is clean, and neither over nor under what is the daemon's.
func FuzzCacheLabel(f *testing.F) {
	for _, seed := range []string{"/var/cache/app", "/", "", "..", "/a/../../etc", "/proc/../x", "/opt/dest/src", "//run", "/\u0130", "/tmp/"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, label string) {
		at, err := buildpipeline.CachePath(cacheConfig(t, label))
		if at == "" {
			return
		}
		if err != nil || !path.IsAbs(at) || path.Clean(at) != at || at == "/" || buildpipeline.Plain(at) != at {
			t.Fatalf("label %q gives %q, %v", label, at, err)
		}
		for _, dir := range []string{"/proc", "/sys", "/dev", "/run", "/etc", "/opt/dest/src", "/opt/dest/scripts"} {
			if strings.HasPrefix(at+"/", dir+"/") || strings.HasPrefix(dir+"/", at+"/") {
				t.Errorf("label %q gives %q, which meets %s", label, at, dir)
			}
		}
	})
}
