package daeploy

import "time"

// Submodule is what came of one submodule of a commit (S4).
type Submodule struct {
	Path    string // relative to the root of the commit, raw bytes
	Commit  Revision
	Skipped string        // why it stays an empty directory, for people; "" if its files are there
	Bytes   int64         // on the repository's disk, by this fetch; 0 if it was there
	Took    time.Duration // of the fetch; 0 if it was there
}
