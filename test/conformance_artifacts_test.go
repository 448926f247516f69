package test_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"strings"

	"github.com/daeploy/daeploy/container/containertest"
)

// artifactCases are about incremental builds: C37 to C41.
var artifactCases = []conformanceCase{
	{37, "B1 twice; B5 twice", "S91-S95 S99", []part{
		{"B1", caseArtifacts},
		{"B5", caseRenamedArtifacts},
	}},
	{38, "B4, B14 twice", "S92", []part{
		{"B4", func(c *trial) { c.cleanTwice(c.app("b4", text)) }},
		{"B14", func(c *trial) { c.cleanTwice(c.app("b14", text)) }},
	}},
	{39, "save-artifacts exits 1; cuts its tar; writes text first; never ends; exceeds a cap; prints nothing", "S94 S97 S98 S142", []part{
		{"exits 1", func(c *trial) { c.saving("tar -C /app -cf - .; exit 1", true) }},
		{"cut off", func(c *trial) { c.saving("tar -C /app -cf - . | head -c 700", true) }},
		{"text first", func(c *trial) { c.saving("echo saving; tar -C /app -cf - .", true) }},
		{"never ends", func(c *trial) {
			c.with("", "[build]\nsave_artifacts_timeout = \"2s\"\n")
			c.saving("tar -C /app -cf - .; sleep 1000", true)
		}},
		{"cap", func(c *trial) {
			c.with("", "[build]\nartifacts = \"1MiB\"\n")
			c.saving("cd /app; dd if=/dev/zero of=/tmp/x bs=1M count=2 2>/dev/null; tar -cf - /tmp/x", true)
		}},
		{"nothing", func(c *trial) { c.saving("true", false) }},
	}},
	{40, "a tar with ../x, a link to / and a file through it, hard link outwards; /abs, device, fifo, set-uid file", "S95 S96", []part{
		{"dot dot", func(c *trial) { c.restoring(true, tarFile("../x", 0o644)) }},
		{"through a link", func(c *trial) {
			c.restoring(true, tar.Header{Name: "d", Typeflag: tar.TypeSymlink, Linkname: "/", Mode: 0o777}, tarFile("d/x", 0o644))
		}},
		{"hard link", func(c *trial) {
			c.restoring(true, tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "../../etc/passwd"})
		}},
		{"odd entries", caseOddEntries},
	}},
	{41, "-o clean; incremental = false; another builder tag; previous image gone; hook new in the second push", "S91 S92 S99", []part{
		{"option", func(c *trial) {
			r := c.app("b1", text)
			r.push().succeeds()
			c.isClean(r.push("-o", "clean"), "-o clean")
		}},
		{".daeploy", func(c *trial) {
			r := c.app("b1", text)
			r.push().succeeds()
			r.write(r.daeploy("b1", "incremental = false\n"))
			c.isClean(r.push(), "incremental")
		}},
		{"builder tag", func(c *trial) {
			r := c.app("b1", text)
			r.push().succeeds()
			image := b1()
			image.Name = "daeploy.local/builders/b1:" + c.name
			c.must(r.s.load(containertest.Archive(c.T, image)))
			r.write(r.daeploy(image.Name, ""))
			c.isClean(r.push(), "builder")
		}},
		{"image gone", func(c *trial) {
			r := c.app("b1", text)
			first := r.push()
			first.succeeds()
			_, err := r.s.ctr("images", "remove", first.Image, "daeploy.local/"+r.app+":latest")
			c.must(err)
			c.isClean(r.push(), "image")
		}},
		{"new hook", func(c *trial) {
			r := c.app("b4", text)
			r.push().succeeds()
			r.write(script(".s2i/bin/save-artifacts", tarSave))
			c.isClean(r.push(), "save-artifacts")
			if b := r.push(); !b.Incremental {
				c.Errorf("%s is not incremental:\n%s", b.id, b.said)
			}
		}},
	}},
}

func caseArtifacts(c *trial) {
	r := c.app("b1", text, script("tool", "#!/bin/sh\n"))
	first := r.push()
	first.succeeds()
	digest := c.digest(first.Image)
	r.remove("a.txt")
	b := r.push()
	b.succeeds().want(map[string]string{
		"/tmp/artifacts":       "drwxr-xr-x 0:0",
		"/tmp/artifacts/a.txt": `-rw-r--r-- 0:0 "text\n"`, "/tmp/artifacts/tool": `-rwxr-xr-x 0:0 "#!/bin/sh\n"`,
		"/app/a.txt": "nothing",
	})
	if first.Incremental || !b.Incremental {
		c.Errorf("incremental: first %v, second %v", first.Incremental, b.Incremental)
	}
	if got := c.digest(first.Image); got != digest {
		c.Errorf("the first image was %s, is %s", digest, got)
	}
	b.silent("warning:")
}

func (c *trial) digest(image string) string {
	c.Helper()
	p, err := c.suite.look(image)
	c.must(err)
	return p.manifest.Config.Digest.String()
}

func caseRenamedArtifacts(c *trial) {
	r := c.app("b5", text, file("deps/lib", "fetched"))
	r.push().succeeds()
	r.remove("deps")
	b := r.push()
	b.succeeds().want(map[string]string{workHome + "/deps/lib": `-rw-rw-r-- 1001:0 "fetched"`, "/tmp/artifacts/deps": "nothing"})
	if !b.Incremental {
		c.Errorf("%s is not incremental", b.id)
	}
}

// cleanTwice wants a second build like the first, without a word about it.
func (c *trial) cleanTwice(r *repository) {
	c.Helper()
	for range 2 {
		b := r.push()
		b.succeeds().want(map[string]string{"/tmp/artifacts": "nothing"})
		if b.Incremental {
			c.Errorf("%s is incremental", b.id)
		}
		b.silent("warning:")
	}
}

// saving wants a second build that restores nothing, with one warning or none.
func (c *trial) saving(words string, warned bool) {
	c.Helper()
	r := c.app("b4", text, script(".s2i/bin/save-artifacts", "#!/bin/sh\n"+words+"\n"))
	r.push().succeeds()
	c.restoresNothing(r.push(), warned)
}

func (c *trial) restoresNothing(b *built, warned bool) {
	c.Helper()
	b.succeeds().want(map[string]string{"/tmp/artifacts": "nothing"})
	want := 0
	if warned {
		want = 1
	}
	if n := strings.Count(b.log(), "warning: "); n != want {
		c.Errorf("%d warnings, want %d:\n%s", n, want, b.said)
	}
	b.says("save-artifacts")
	if warned && b.Incremental {
		c.Errorf("%s is incremental", b.id)
	}
}

func tarFile(name string, mode int64) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: mode, Size: 1}
}

// restored is the second build of an app whose save-artifacts gives a tar.
func (c *trial) restored(entries ...tar.Header) *built {
	c.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, h := range entries {
		c.must(w.WriteHeader(&h))
		_, err := w.Write([]byte("x")[:h.Size])
		c.must(err)
	}
	c.must(w.Close())
	r := c.app("b4", file("saved.tar", out.String()), script(".s2i/bin/save-artifacts", "#!/bin/sh\ncat /app/saved.tar\n"))
	r.push().succeeds()
	return r.push()
}

// restoring wants a clean build with a warning, and nothing outside.
func (c *trial) restoring(warned bool, entries ...tar.Header) {
	c.Helper()
	b := c.restored(entries...)
	c.restoresNothing(b, warned)
	b.succeeds().want(map[string]string{"/tmp/x": "nothing", "/x": "nothing"})
	c.nothingAt("/x")
}

func caseOddEntries(c *trial) {
	b := c.restored(tarFile("/abs", 0o600), tar.Header{Name: "null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3, Mode: 0o666},
		tar.Header{Name: "pipe", Typeflag: tar.TypeFifo, Mode: 0o644}, tarFile("tool", 0o6755), tarFile("./deep/x", 0o644))
	b.succeeds().want(map[string]string{
		"/tmp/artifacts/abs": `-rw------- 0:0 "x"`, "/tmp/artifacts/null": "nothing", "/tmp/artifacts/pipe": "nothing",
		"/tmp/artifacts/tool": `-rwxr-xr-x 0:0 "x"`, "/tmp/artifacts/deep/x": `-rw-r--r-- 0:0 "x"`, "/abs": "nothing",
	})
	if n := strings.Count(b.log(), "warning: "); n != 1 {
		c.Errorf("%d warnings, want 1:\n%s", n, b.said)
	}
	if got := b.succeeds().files["/tmp/artifacts/tool"]; got.Header != nil && got.Mode&0o7000 != 0 {
		c.Errorf("the set-uid bit is kept: %o", got.Mode)
	}
}

// isClean wants a clean build that gives its reason.
func (c *trial) isClean(b *built, reason string) {
	c.Helper()
	b.succeeds()
	if b.Incremental {
		c.Errorf("%s is incremental", b.id)
	}
	b.says("clean build: " + b.Clean)
	if !strings.Contains(b.Clean, reason) {
		c.Errorf("the record's reason is %q, want %q", b.Clean, reason)
	}
}

const metadataFile = "/tmp/.s2i/image_metadata.json"

// describing is a hook that runs the image's assemble and leaves metadata.
func describing(words string) containertest.File {
	return script(".s2i/bin/assemble", fmt.Sprintf("#!/bin/sh\nset -e\nmkdir -p /tmp/.s2i\n%s\nexec %s/assemble\n", words, stockDir))
}

func metadata(text string) containertest.File {
	return describing("cat >" + metadataFile + " <<'END'\n" + text + "\nEND")
}
