package daeploy_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy"
)

const (
	passwd = "root:x:0:0:root:/root:/bin/sh\n" +
		"# a comment:x:1:1::/:\n" +
		"+nis::::::\n" +
		"broken:x:one:1::/:\n" +
		"short:x:7\n" +
		"huge:x:4294967296:0::/:\n" +
		"default:x:1001:0::/opt/app-root/src:/sbin/nologin\n" +
		"fakeuser:x:431:433::relative:/bin/sh\r\n" +
		"last:x:5:6::/last:/bin/sh"
	group = "root:x:0:\nwheel:x:10:root,default\nbad:x:x:default\nmany:x:20:fakeuser,default\ntwice:x:20:default\nempty:x:30:\n"
)

// S13, S34, S133, S134, F84.
func TestLookupUser(t *testing.T) {
	tests := []struct {
		spec string
		want daeploy.User
		err  string
	}{
		{spec: "", want: daeploy.User{Home: "/root", Groups: []uint32{10}}},
		{spec: "root", want: daeploy.User{Home: "/root", Groups: []uint32{10}}},
		{spec: "0", want: daeploy.User{Home: "/root", Groups: []uint32{10}}},
		{spec: "default", want: daeploy.User{UID: 1001, Home: "/opt/app-root/src", Groups: []uint32{10, 20}}},
		{spec: "1001", want: daeploy.User{UID: 1001, Home: "/opt/app-root/src", Groups: []uint32{10, 20}}},
		{spec: "1001:0", want: daeploy.User{UID: 1001, Home: "/opt/app-root/src"}},
		{spec: "default:wheel", want: daeploy.User{UID: 1001, GID: 10, Home: "/opt/app-root/src"}},
		{spec: "default:", want: daeploy.User{UID: 1001, Home: "/opt/app-root/src", Groups: []uint32{10, 20}}},
		{spec: ":wheel", want: daeploy.User{GID: 10, Home: "/root"}},
		{spec: "fakeuser", want: daeploy.User{UID: 431, GID: 433, Home: "/", Groups: []uint32{20}}},
		{spec: "7777", want: daeploy.User{UID: 7777, Home: "/"}},
		{spec: "7777:8888", want: daeploy.User{UID: 7777, GID: 8888, Home: "/"}},
		{spec: "last", want: daeploy.User{UID: 5, GID: 6, Home: "/last"}},
		{spec: "2147483647", want: daeploy.User{UID: 2147483647, Home: "/"}},
		{spec: "2147483648", err: "user id 2147483648 is above 2147483647"},
		{spec: "4294967296", err: "user id 4294967296 is above 2147483647"},
		{spec: "0:4294967296", err: "group id 4294967296 is above 2147483647"},
		{spec: "nobody", err: `there is no user "nobody"`},
		{spec: "root:nobody", err: `there is no group "nobody"`},
		{spec: "broken", err: `there is no user "broken"`},
		{spec: "short", err: `there is no user "short"`},
		{spec: "huge", err: `there is no user "huge"`},
		{spec: "+nis", err: `there is no user "+nis"`},
		{spec: "-1", err: `there is no user "-1"`},
		{spec: "bad:bad", err: `there is no user "bad"`},
	}
	for _, tt := range tests {
		t.Run(tt.spec, func(t *testing.T) {
			got, err := daeploy.LookupUser(tt.spec, []byte(passwd), []byte(group))
			if text := errorText(err); text != tt.err {
				t.Fatalf("LookupUser(%q): error %q, want %q", tt.spec, text, tt.err)
			}
			if err != nil {
				return
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("LookupUser(%q) (-want +got):\n%s", tt.spec, diff)
			}
		})
	}
	t.Attr("F86", "25 users and groups, by name and number, above the limit, broken lines: found or refused as the kernel would take them")
}

// CVE-2026-47262: a group file has no business being larger than memory.
func TestLookupUserRefusesHugeFiles(t *testing.T) {
	if _, err := daeploy.LookupUser("0", make([]byte, daeploy.MaxUserFile+1), nil); err == nil {
		t.Error("a passwd file above the limit is accepted")
	}
}

// A user of many groups is refused, and soon.
func TestLookupUserOfManyGroups(t *testing.T) {
	groups := func(n int) []byte {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "g:x:%d:last\n", i)
		}
		return []byte(b.String())
	}
	if u, err := daeploy.LookupUser("last", []byte(passwd), groups(1000)); err != nil || len(u.Groups) != 1000 {
		t.Errorf("a user of 1,000 groups has %d, %v", len(u.Groups), err)
	}
	began := time.Now()
	const want = `user "last" is in more than 1000 groups`
	if _, err := daeploy.LookupUser("last", []byte(passwd), groups(70_000)); errorText(err) != want {
		t.Errorf("a user of 70,000 groups: %v, want %s", err, want)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("to refuse a user of 70,000 groups takes %s", took)
	}
	t.Attr("F86", "a user of 70,000 groups: refused by name at the limit of 1,000, at once")
}

// A home becomes HOME: what no environment can hold is none.
func TestLookupUserHome(t *testing.T) {
	for _, home := range []string{"/a\x00b", "/" + strings.Repeat("a", 200_000), strings.Repeat("/a", 300)} {
		u, err := daeploy.LookupUser("u", []byte("u:x:1:1::"+home+":\n"), nil)
		if err != nil || u.Home != "/" {
			t.Errorf("a home of %d bytes: %.20q, %v; want /", len(home), u.Home, err)
		}
	}
}

func FuzzLookupUser(f *testing.F) {
	for _, spec := range []string{"", "root", "1001:0", ":", "a:b:c", "4294967295", "00", "-0"} {
		f.Add(spec, passwd, group)
	}
	f.Fuzz(func(t *testing.T, spec, passwd, group string) {
		u, err := daeploy.LookupUser(spec, []byte(passwd), []byte(group))
		if err != nil {
			return
		}
		if u.UID > 1<<31-1 || u.GID > 1<<31-1 {
			t.Errorf("LookupUser(%q) = uid %d gid %d, beyond 2147483647", spec, u.UID, u.GID)
		}
		if !strings.HasPrefix(u.Home, "/") {
			t.Errorf("LookupUser(%q): home %q is not absolute", spec, u.Home)
		}
	})
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
