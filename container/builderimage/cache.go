package builderimage

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/daeploy/daeploy"
)

// A cache directory holds
//
//	lock                       locked while a Make uses the directory
//	<base>-<content>.tar       a base system; both parts are SHA-256 in hexadecimal
//	partial-*                  one being written; what lies there unlocked is from a crash
//
// The one rename that publishes a file also publishes the hash it must have, so
// that neither a crash nor a bad disk can pass for a base system.
const partial = "partial-"

// cacheFormat is part of every key; it changes when equal Bases come to mean
// other trees.
const cacheFormat = "1"

var errDamaged = errors.New("cached base system is damaged")

// withBase calls use with the tar stream of base system b, from the cache if it
// may. use can be called twice: what it read the first time then counts for
// nothing.
func withBase(ctx context.Context, b Base, o Options, use func(io.Reader) error) (err error) {
	dir := o.CacheDir
	if dir == "" {
		dir, err = os.MkdirTemp("", "daeploy-cache-*")
		if err != nil {
			return fmt.Errorf("make a temporary directory: %w", err)
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	unlock, err := lockCache(dir)
	if err != nil {
		return err
	}
	defer unlock()

	key, err := b.key()
	if err != nil {
		return err
	}
	if file := find(dir, key); file != "" && !o.Refresh {
		fmt.Fprintf(o.Log, "using the base system of an earlier build\n")
		err := readBase(file, use)
		if !errors.Is(err, errDamaged) {
			return err
		}
		fmt.Fprintf(o.Log, "it is damaged: making it anew\n")
	}
	file, err := makeBase(ctx, b, o, dir, key)
	if err != nil {
		return err
	}
	return readBase(file, use)
}

func (b Base) key() (string, error) {
	j, err := json.Marshal(b)
	if err != nil {
		return "", fmt.Errorf("name the base system: %w", err)
	}
	sum := sha256.Sum256(append([]byte(cacheFormat), j...))
	return hex.EncodeToString(sum[:]), nil
}

// find is the file of a key, or "". makeBase leaves one per key.
func find(dir, key string) string {
	files, _ := filepath.Glob(filepath.Join(dir, key+"-*.tar"))
	if len(files) == 0 {
		return ""
	}
	return files[0]
}

// lockCache makes the directory, takes its lock and clears what a crash left.
func lockCache(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the builder cache: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the builder cache: %w", err)
	}
	err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		lock.Close()
		return nil, &daeploy.Error{
			Kind: daeploy.TryAgain, Code: "builder_cache_busy", Message: "another builder image is being made",
			Hint: "wait for it to end; two at a time need two cache directories",
		}
	}
	if err == nil {
		err = removeAll(filepath.Join(dir, partial+"*"), "")
	}
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("prepare the builder cache: %w", err)
	}
	return func() { lock.Close() }, nil
}

// removeAll removes the files that match, but one.
func removeAll(pattern, but string) error {
	files, err := filepath.Glob(pattern)
	if err != nil {
		return err
	}
	for _, f := range files {
		if f != but {
			err = errors.Join(err, os.Remove(f))
		}
	}
	return err
}

// makeBase bootstraps into the cache and takes older files of the key away.
func makeBase(ctx context.Context, b Base, o Options, dir, key string) (string, error) {
	f, err := os.CreateTemp(dir, partial+"*")
	if err != nil {
		return "", fmt.Errorf("make a file in the builder cache: %w", err)
	}
	defer os.Remove(f.Name()) // after the rename there is none
	defer f.Close()
	sum := sha256.New()
	if err := o.Bootstrap(ctx, b, o.Log, io.MultiWriter(f, sum)); err != nil {
		return "", err
	}
	if err := f.Sync(); err != nil {
		return "", fmt.Errorf("write the base system: %w", err)
	}
	file := filepath.Join(dir, key+"-"+hex.EncodeToString(sum.Sum(nil))+".tar")
	if err := os.Rename(f.Name(), file); err != nil {
		return "", fmt.Errorf("keep the base system: %w", err)
	}
	if err := removeAll(filepath.Join(dir, key+"-*.tar"), file); err != nil {
		return "", fmt.Errorf("remove an older base system: %w", err)
	}
	return file, nil
}

// readBase hands a cached file to use. It is errDamaged if the content is not
// what the name says, whatever use said of it.
func readBase(file string, use func(io.Reader) error) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("open the base system: %w", err)
	}
	defer f.Close()
	sum := sha256.New()
	useErr := use(io.TeeReader(f, sum))
	if _, err := io.Copy(sum, f); err != nil {
		return fmt.Errorf("read the base system: %w", err)
	}
	if !named(file, sum) {
		return errDamaged
	}
	return useErr
}

func named(file string, sum hash.Hash) bool {
	suffix := "-" + hex.EncodeToString(sum.Sum(nil)) + ".tar"
	name := filepath.Base(file)
	return len(name) > len(suffix) && name[len(name)-len(suffix):] == suffix
}
