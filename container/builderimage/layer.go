package builderimage

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"github.com/daeploy/daeploy"
)

// hostFacts are left out of every image: what tells of the machine and the hour
// that made it, what a container gets from its runtime, and what apt makes anew.
// Directories themselves stay, but for what the patterns name.
var hostFacts = []string{
	"dev/*", "proc/*", "sys/*", "run/*", "tmp/*", "var/tmp/*",
	"etc/hostname", "etc/hosts", "etc/machine-id", "etc/resolv.conf", "var/lib/dbus/machine-id",
	"etc/.pwd.lock", "etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-",
	"var/lib/apt/lists/*", "var/cache/apt/*", "var/cache/ldconfig/*", "var/cache/debconf/*-old", "var/lib/dpkg/*-old",
	"var/log/*.log", "var/log/apt/*",
}

// maxAccounts bounds /etc/passwd, group and shadow, in bytes.
const maxAccounts = 1 << 20

// layer writes the image's one layer.
type layer struct {
	recipe Recipe
	out    *tar.Writer
	seen   map[string]byte // type of every entry written, by path without leading slash
	gone   map[string]bool // regular files left out, which hard links could name
}

// writeLayer copies the base system from tree to out, without what is to be
// left out, and adds the recipe's user, files, directories and scripts. The
// order is the tree's, which Mmdebstrap sorts, then the recipe's.
func writeLayer(ctx context.Context, tree io.Reader, r Recipe, files *recipeFiles, scripts []script, out io.Writer) error {
	l := &layer{recipe: r, out: tar.NewWriter(out), seen: map[string]byte{}, gone: map[string]bool{}}
	in := tar.NewReader(tree)
	for {
		if ctx.Err() != nil {
			return fmt.Errorf("write the layer: %w", context.Cause(ctx))
		}
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return treeError(err, "it cannot be read")
		}
		if err := l.copy(h, in); err != nil {
			return err
		}
	}
	if err := files.each(l.addFile); err != nil {
		return err
	}
	for _, name := range []string{"etc/passwd", "etc/group"} {
		if l.seen[name] != tar.TypeReg {
			return treeError(nil, "/%s is missing or no plain file", name)
		}
	}
	if err := l.add(scripts); err != nil {
		return err
	}
	if err := l.out.Close(); err != nil {
		return fmt.Errorf("write the layer: %w", err)
	}
	return nil
}

func treeError(cause error, format string, args ...any) error {
	return &daeploy.Error{
		Kind: daeploy.Failure, Code: "rootfs_invalid", Message: "base system: " + fmt.Sprintf(format, args...), Err: cause,
	}
}

// copy writes one entry of the base system, or drops it.
func (l *layer) copy(h *tar.Header, content io.Reader) error {
	name := path.Clean(h.Name)
	if name == "." {
		return nil
	}
	if path.IsAbs(name) || name == ".." || strings.HasPrefix(name, "../") {
		return treeError(nil, "entry %q leads out of it", h.Name)
	}
	if matchPath(hostFacts, name) || matchPath(l.recipe.Remove, name) && !matchPath(l.recipe.Keep, name) {
		l.gone[name] = true
		return nil
	}
	if only := l.recipe.Only; len(only) > 0 {
		if h.Typeflag == tar.TypeDir || !matchPath(only, name) {
			l.gone[name] = true
			return nil
		}
		if err := l.parents("/" + name); err != nil {
			return err
		}
	}
	if dir := path.Dir(name); dir != "." && l.seen[dir] != tar.TypeDir {
		return treeError(nil, "entry %q comes without its directory%s", name, because(l.gone[dir], ": the recipe removes it"))
	}
	n := tar.Header{
		Typeflag: h.Typeflag, Name: name, Mode: h.Mode & 0o7777, Uid: h.Uid, Gid: h.Gid,
		ModTime: l.clamp(h.ModTime), PAXRecords: xattrs(h.PAXRecords),
	}
	switch h.Typeflag {
	case tar.TypeDir:
	case tar.TypeReg:
		n.Size = h.Size
	case tar.TypeSymlink:
		n.Linkname = h.Linkname
	case tar.TypeLink:
		n.Linkname = path.Clean(h.Linkname)
		if l.seen[n.Linkname] == 0 {
			return treeError(nil, "hard link %q has no target%s", name, because(l.gone[n.Linkname], ": the recipe removes it"))
		}
	default:
		return treeError(nil, "entry %q has type %q", name, h.Typeflag)
	}
	return l.put(n, content)
}

// put writes an entry of the base system or of the recipe's files.
func (l *layer) put(h tar.Header, content io.Reader) error {
	switch h.Name {
	case "etc/passwd", "etc/group", "etc/shadow":
		return l.accounts(h, content)
	}
	return l.write(h, content)
}

func because(b bool, s string) string {
	if b {
		return s
	}
	return ""
}

// clamp gives whole seconds, not after the epoch.
func (l *layer) clamp(t time.Time) time.Time {
	if t.After(l.recipe.Epoch) {
		return l.recipe.Epoch
	}
	return t.Truncate(time.Second)
}

// xattrs drops all PAX records but extended attributes, which hold file
// capabilities.
func xattrs(records map[string]string) map[string]string {
	kept := map[string]string{}
	for k, v := range records {
		if strings.HasPrefix(k, "SCHILY.xattr.") {
			kept[k] = v
		}
	}
	return kept
}

// accounts adds the recipe's user to one of the account files. The group file
// is only read: the user's group must be there.
func (l *layer) accounts(h tar.Header, content io.Reader) error {
	if h.Typeflag != tar.TypeReg || h.Size > maxAccounts {
		return treeError(nil, "/%s is no plain file of at most 1 MiB", h.Name)
	}
	text, err := io.ReadAll(content)
	if err != nil {
		return treeError(err, "/%s cannot be read", h.Name)
	}
	if len(text) > 0 && text[len(text)-1] != '\n' {
		text = append(text, '\n')
	}
	u := l.recipe.User
	id, gid := fmt.Sprint(u.UID), fmt.Sprint(u.GID)
	switch h.Name {
	case "etc/group":
		if !hasField(text, 2, gid) {
			return recipeError("user.gid", "the base system has no group %s", gid)
		}
	case "etc/passwd":
		if hasField(text, 0, u.Name) || hasField(text, 2, id) {
			return recipeError("user", "the base system has a user %s or %s already", u.Name, id)
		}
		text = fmt.Appendf(text, "%s:x:%s:%s::%s:/bin/sh\n", u.Name, id, gid, u.Home)
	case "etc/shadow":
		text = fmt.Appendf(text, "%s:!:%d:0:99999:7:::\n", u.Name, l.recipe.Epoch.Unix()/(24*60*60))
	}
	h.Size, h.ModTime = int64(len(text)), l.recipe.Epoch
	return l.write(h, bytes.NewReader(text))
}

// hasField tells whether a line of an account file has the value in field n.
func hasField(text []byte, n int, value string) bool {
	for line := range bytes.Lines(text) {
		if f := strings.Split(strings.TrimSuffix(string(line), "\n"), ":"); len(f) > n && f[n] == value {
			return true
		}
	}
	return false
}

// addFile writes one of the recipe's files, root's as all that is not the app's.
func (l *layer) addFile(h tar.Header, content io.Reader) error {
	if err := l.parents("/" + h.Name); err != nil {
		return err
	}
	h.ModTime = l.recipe.Epoch
	return l.put(h, content)
}

// add writes what only the recipe knows.
func (l *layer) add(scripts []script) error {
	for _, d := range l.recipe.Directories {
		if err := l.mkdir(d); err != nil {
			return err
		}
	}
	if err := l.parents(scriptsDir + "/x"); err != nil {
		return err
	}
	for _, s := range scripts {
		h := tar.Header{
			Typeflag: tar.TypeReg, Name: strings.TrimPrefix(scriptsDir, "/") + "/" + s.name,
			Mode: 0o755, Size: int64(len(s.content)), ModTime: l.recipe.Epoch,
		}
		if err := l.write(h, bytes.NewReader(s.content)); err != nil {
			return err
		}
	}
	return nil
}

func (l *layer) mkdir(d Directory) error {
	if err := l.parents(d.Path); err != nil {
		return err
	}
	return l.write(tar.Header{
		Typeflag: tar.TypeDir, Name: d.Path[1:], Mode: int64(d.Mode), Uid: int(d.UID), Gid: int(d.GID), ModTime: l.recipe.Epoch,
	}, nil)
}

// parents makes the directories above p that are missing, 0755 0:0.
func (l *layer) parents(p string) error {
	dir := path.Dir(p)
	switch {
	case dir == "/" || l.seen[dir[1:]] == tar.TypeDir:
		return nil
	case l.seen[dir[1:]] != 0:
		return recipeError("directories", "%s passes %s, which is no directory of the base system", p, dir)
	}
	return l.mkdir(Directory{Path: dir, Mode: 0o755})
}

func (l *layer) write(h tar.Header, content io.Reader) error {
	if l.seen[h.Name] != 0 {
		return recipeError("directories", "/%s is in the image already", h.Name)
	}
	l.seen[h.Name] = h.Typeflag
	if h.Typeflag == tar.TypeDir {
		h.Name += "/"
	}
	if err := l.out.WriteHeader(&h); err != nil {
		return fmt.Errorf("write %s into the layer: %w", h.Name, err)
	}
	if h.Size == 0 {
		return nil
	}
	if _, err := io.Copy(l.out, content); err != nil {
		return fmt.Errorf("write %s into the layer: %w", h.Name, err)
	}
	return nil
}

// matchPath tells whether one of the patterns matches name or a directory above
// it. A pattern is matched whole, by path.Match: * does not cross a slash.
func matchPath(patterns []string, name string) bool {
	for p := name; p != "."; p = path.Dir(p) {
		for _, pattern := range patterns {
			if ok, _ := path.Match(pattern, p); ok {
				return true
			}
		}
	}
	return false
}
