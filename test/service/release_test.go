package service_test

import (
	"debug/elf"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// pack makes the packages of a version and puts them into the machine's /share.
func (m *machine) pack(version string) {
	m.Helper()
	dist, archs := m.path("dist-"+version), runtime.GOARCH
	if version == first {
		archs = "amd64 arm64" // as they are released
	}
	cmd := exec.CommandContext(m.Context(), "make", "--no-print-directory", "-C", "../..", "dist", "VERSION="+version, "DIST="+dist, "ARCHS="+archs)
	if out, err := cmd.CombinedOutput(); err != nil {
		m.Fatalf("make dist: %v\n%s", err, out)
	}
	m.released(dist, version, strings.Fields(archs))
	for _, name := range []string{deb(version), rpm(version)} {
		if err := os.Rename(filepath.Join(dist, name), m.path("share", name)); err != nil {
			m.Fatal(err)
		}
	}
}

// released looks at what make dist has made: checksums of all of it, and for each
// architecture a static program, its bill of materials and packages that say whose they
// are and what they need.
func (m *machine) released(dist, version string, archs []string) {
	m.Helper()
	sum := exec.CommandContext(m.Context(), "sha256sum", "--strict", "-c", "SHA256SUMS")
	sum.Dir = dist
	out, err := sum.CombinedOutput()
	if err != nil {
		m.Errorf("sha256sum -c: %v\n%s", err, out)
	}
	for _, arch := range archs {
		name := fmt.Sprintf("daeploy_%s_linux_%s", version, arch)
		packaged := fmt.Sprintf("daeploy_%s_%s.deb", version, arch)
		for _, file := range []string{name, name + ".cdx.json", packaged} {
			if !strings.Contains(string(out), file+": OK\n") {
				m.Errorf("%s has no checksum:\n%s", file, out)
			}
		}
		program, err := elf.Open(filepath.Join(dist, name))
		if err != nil {
			m.Fatal(err)
		}
		machine := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[arch]
		static := !slices.ContainsFunc(program.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
		if program.Close(); program.Machine != machine || !static {
			m.Errorf("%s is for %s, static %t", name, program.Machine, static)
		}
		var bill struct {
			Format     string            `json:"bomFormat"`
			Components []json.RawMessage `json:"components"`
		}
		text, err := os.ReadFile(filepath.Join(dist, name+".cdx.json"))
		if err == nil {
			err = json.Unmarshal(text, &bill)
		}
		if err != nil || bill.Format != "CycloneDX" || len(bill.Components) < 50 {
			m.Errorf("the bill of materials of %s is of form %q with %d components, %v", name, bill.Format, len(bill.Components), err)
		}
		said, err := exec.CommandContext(m.Context(), "dpkg-deb", "-f", filepath.Join(dist, packaged), "Architecture", "Depends").Output()
		if err != nil {
			m.Fatalf("dpkg-deb: %v", err)
		}
		for _, want := range []string{"Architecture: " + arch + "\n", "containerd (>= 1.6", "runc", "git (>= 1:2.34", "containernetworking-plugins", "iptables", "tini", "systemd", "ca-certificates"} {
			if !strings.Contains(string(said), want) {
				m.Errorf("%s lacks %q:\n%s", packaged, want, said)
			}
		}
	}
}

func deb(version string) string { return fmt.Sprintf("daeploy_%s_%s.deb", version, runtime.GOARCH) }
