package gitreceive

import (
	"os"
	"path/filepath"
)

// hookScript is git's proc-receive hook. It relays and decides nothing, so
// whoever starts it by hand moves nothing (F40): git's commands go to
// descriptor 3, the daemon's answers come from 4, the log from 5.
//
// The copying cats get their input by name, because a shell gives a background
// command /dev/null. The first must not hold git's standard error, whose end
// git waits for; and the hook stays until all of the log is through.
const hookScript = `#!/bin/sh
exec 6<&0
cat <&6 >&3 2>/dev/null 4<&- 5<&- &
cat <&5 >&2 3>&- 4<&- 6<&- &
log=$!
cat <&4 3>&- 5<&- 6<&-
wait "$log"
`

const hookName = "proc-receive"

// writeHook puts the hook into dir, which holds nothing else: it is
// core.hooksPath, and no hook of a repository ever runs (F44). One that is as it
// should be stays: the disk may be full.
func writeHook(dir string) error {
	if holdsHook(dir) {
		return nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, hookName), []byte(hookScript), 0o755)
}

func holdsHook(dir string) bool {
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != hookName {
		return false
	}
	info, err := entries[0].Info()
	if err != nil || info.Mode() != 0o755 {
		return false
	}
	text, err := os.ReadFile(filepath.Join(dir, hookName))
	return err == nil && string(text) == hookScript
}
