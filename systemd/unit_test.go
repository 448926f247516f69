package systemd_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/daeploy/daeploy/systemd"
)

// What systemd 252 prints.
func TestDoorsOf(t *testing.T) {
	for name, test := range map[string]struct {
		out  string
		want systemd.Doors
	}{
		"open": {
			"Listen=[::]:2222 (Stream)\nListen=/run/daeploy/daeploy.sock (Stream)\nResult=success\nLoadState=loaded\nActiveState=active\n",
			systemd.Doors{Known: true, Open: true, Result: "success", TCP: []string{"[::]:2222"}},
		},
		"taken": {
			"Listen=/run/daeploy/daeploy.sock (Stream)\nListen=10.0.0.1:22 (Stream)\nListen=[::1]:22 (Stream)\nResult=resources\nLoadState=loaded\nActiveState=failed\n",
			systemd.Doors{Known: true, Result: "resources", TCP: []string{"10.0.0.1:22", "[::1]:22"}},
		},
		"no stream of TCP": {
			"Listen=@daeploy (Stream)\nListen=/run/a:b (Stream)\nListen=[::]:2222 (Datagram)\nLoadState=loaded\nActiveState=inactive\n",
			systemd.Doors{Known: true},
		},
		"masked":  {"LoadState=masked\nActiveState=inactive\n", systemd.Doors{Masked: true}},
		"missing": {"LoadState=not-found\nActiveState=inactive\n", systemd.Doors{}},
		"nothing": {"", systemd.Doors{}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, systemd.DoorsOf(test.out)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWalls(t *testing.T) {
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("/srv", link); err != nil {
		t.Fatal(err)
	}
	const unit = "LoadState=loaded\nReadWritePaths=/var/lib/containerd -/var/backups/daeploy\nStateDirectory=daeploy\nRuntimeDirectory=daeploy:link\n" +
		"CacheDirectory=\nBindPaths=/home/ci:/home/ci:rbind /data:/mnt/data:rbind\n"
	for _, test := range []struct{ more, dir, want string }{
		{"ProtectSystem=strict\nProtectHome=yes\n", "/var/lib/daeploy", ""},
		{"ProtectSystem=strict\nProtectHome=yes\n", "/var/lib/daeploy/deep", ""},
		{"ProtectSystem=strict\nProtectHome=yes\n", "/var/backups/daeploy", ""},
		{"ProtectSystem=strict\nProtectHome=yes\n", "/var/lib/daeploy2", "ProtectSystem=strict"},
		{"ProtectSystem=strict\nProtectHome=yes\n", "/srv/daeploy", "ProtectSystem=strict"},
		{"ProtectSystem=strict\nProtectHome=yes\n", "/mnt/data/daeploy", ""},
		{"ProtectSystem=strict\nProtectHome=yes\n", "/data", "ProtectSystem=strict"},
		{"ProtectSystem=strict\nProtectHome=yes\n", "/home/ci/daeploy", ""},
		{"ProtectSystem=strict\nProtectHome=yes\n", "/home/anna", "ProtectHome=yes"},
		{"ProtectSystem=strict\nProtectHome=read-only\n", "/home/anna", "ProtectHome=read-only"},
		{"ProtectSystem=strict\nProtectHome=no\n", "/home/anna", ""},
		{"ProtectSystem=strict\nProtectHome=no\n", link + "/daeploy", "ProtectSystem=strict"},
		{"ProtectSystem=full\nProtectHome=no\n", "/srv/daeploy", ""},
		{"ProtectSystem=full\nProtectHome=no\n", "/etc/daeploy", "ProtectSystem=full"},
		{"ProtectSystem=yes\nProtectHome=no\n", "/usr/daeploy", "ProtectSystem=yes"},
		{"ProtectSystem=no\nProtectHome=no\n", "/usr/daeploy", ""},
	} {
		if got := systemd.WallsOf(unit + test.more).Against(test.dir); got != test.want {
			t.Errorf("against %s, with %q: %q; want %q", test.dir, test.more, got, test.want)
		}
	}
	if got := systemd.WallsOf("LoadState=not-found\nProtectSystem=strict\n").Against("/srv"); got != "" {
		t.Errorf("without the unit there is a wall: %q", got)
	}
	hidden := "LoadState=loaded\nProtectHome=yes\nReadWritePaths=/home/anna\n"
	if got := systemd.WallsOf(hidden).Against("/home/anna"); got != "ProtectHome=yes" {
		t.Errorf("ReadWritePaths= is taken for a way into a hidden home: %q", got)
	}
}

// TestNoSystemd: where it does not run there are neither doors nor walls.
func TestNoSystemd(t *testing.T) {
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		return // test/service asks the real one
	}
	doors, err := systemd.AskDoors(t.Context())
	if err != nil || doors.Known {
		t.Errorf("AskDoors: %+v, %v", doors, err)
	}
	walls, err := systemd.AskWalls(t.Context())
	if err != nil || walls.Against("/srv") != "" {
		t.Errorf("AskWalls: %+v, %v", walls, err)
	}
}
