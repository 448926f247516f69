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

// writeHook puts the hook into dir, which holds nothing else: it is
// core.hooksPath, and no hook of a repository ever runs (F44).
func writeHook(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, "proc-receive"), []byte(hookScript), 0o755)
}
