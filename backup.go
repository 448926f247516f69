package daeploy

// StateFile is a file of the state directory as a backup keeps it.
type StateFile struct {
	Name string // below the state directory, with slashes; a directory's ends in one
	Path string // where its content is to be read; "" for a directory
	Size int64  // how many bytes of it belong to the backup: it may grow
}
