package daeploy

import "io"

// WindowSize is the size of a terminal in characters.
type WindowSize struct {
	Cols, Rows int
}

// ImageFiles are the files of an image. Paths are absolute; links are followed
// inside the image and never lead out of it.
type ImageFiles interface {
	// Stat is fs.ErrNotExist if there is nothing.
	Stat(path string) (FileInfo, error)
	// ReadHead reads the first n bytes of a regular file, or all if it is shorter.
	ReadHead(path string, n int) ([]byte, error)
}

// OutputKept is how many bytes of a script's output stay to be read again when
// they were handed over: as much as a reader may hold back.
const OutputKept = 64 << 10

// RunSpec asks for an image to be started in the foreground. The container is
// gone when the run has ended, or soon after its ctx has.
type RunSpec struct {
	App   AppName
	Image ImageRef
	Args  []string // nil = the image's own entrypoint and command
	Env   []string // NAME=value, on top of the image's

	// Command, if not nil, gives Args once the image's files can be looked at.
	// They must not be used after it has returned.
	Command func(ImageFiles) ([]string, error)

	Offline bool // without network

	// Terminal gives the process a terminal: all output comes on Stdout then, and
	// Size and the values of Resize set its size. Resize may be nil, and is
	// never waited for.
	Terminal bool
	Term     string // TERM inside; with Terminal only
	Size     WindowSize
	Resize   <-chan WindowSize

	// Stdin may be nil for none. It is read until the process ends; a Read that
	// then still hangs is left behind, for whoever owns Stdin to release.
	Stdin          io.Reader
	Stdout, Stderr io.Writer

	// Started, if not nil, is called at most once, when the process runs and
	// before RunImage returns, with the process's address on the host's bridge
	// ("" if it has no network).
	Started func(addr string)
}
