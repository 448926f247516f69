package daeploy

import (
	"context"
	"errors"
	"fmt"
	"syscall"
)

// Kind sorts errors by what the one who reads them can do. Each maps to one
// exit code (ExitCode); nothing else does.
type Kind int

// The kinds, with their exit codes.
const (
	Internal    Kind = iota // 70: a fault of ours; the pusher learns an id, the operator the rest
	Failure                 // 1: it did not work, and nobody's words were wrong
	Usage                   // 2: the command line is off
	Invalid                 // 2: a name or value outside its grammar
	BuildFailed             // 3: the build ended without an image
	NotFound                // 4
	Denied                  // 5
	Unavailable             // 69: containerd or a registry is away
	TryAgain                // 75: locked, draining, full: later it may work
	Config                  // 78: the daemon's configuration or state
	Canceled                // 130
)

var exitCodes = [...]int{
	Internal: 70, Failure: 1, Usage: 2, Invalid: 2, BuildFailed: 3, NotFound: 4, Denied: 5,
	Unavailable: 69, TryAgain: 75, Config: 78, Canceled: 130,
}

// Error is an error with words for two readers: Message and Hint are for the
// one who pushed or typed, Err is for the operator's log.
type Error struct {
	Kind    Kind
	Code    string // stable: a code of s2i-contract.md section 11, or a word of ours
	Message string // what happened and why; one line, no final period needed
	Hint    string // the one next action; may be empty
	Err     error  // the cause; never shown to the pusher
	Logged  bool   // the operator's log has it: whoever passes it on does not log it again
}

// Error is for the operator: message and cause.
func (e *Error) Error() string {
	if e.Err == nil {
		return e.Message
	}
	return e.Message + ": " + e.Err.Error()
}

// ForOperator tells of an error of which the operator's log is to have the cause: who
// asked can do nothing about it.
func (e *Error) ForOperator() bool {
	return e.Kind == Internal || e.Kind == Unavailable || e.Kind == Config || e.Code == CodeDiskFull
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an Error without hint and cause.
func Errorf(kind Kind, code, format string, args ...any) *Error {
	return &Error{Kind: kind, Code: code, Message: fmt.Sprintf(format, args...)}
}

// KindOf is the kind of the first Error in err's chain. A bare
// context.Canceled is Canceled; anything else without a kind is Internal.
func KindOf(err error) Kind {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e.Kind
	case errors.Is(err, ErrCanceled), errors.Is(err, context.Canceled):
		return Canceled
	}
	return Internal
}

// ExitCode is the exit status a command ends with; 0 for nil.
func ExitCode(err error) int {
	if err == nil {
		return 0
	}
	return exitCodes[KindOf(err)]
}

// KindOfExit is the kind behind an exit status of a daeploy program: Failure if
// no kind has it.
func KindOfExit(status int) Kind {
	for kind, code := range exitCodes {
		if code == status {
			return Kind(kind)
		}
	}
	return Failure
}

// Public is what may be shown to the one who asked. An error without words of its
// own becomes "internal error in <what>" and keeps err as its cause, unless a disk is
// full.
func Public(err error, what string) *Error {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e
	case KindOf(err) == Canceled:
		return &Error{Kind: Canceled, Code: "canceled", Message: "canceled", Err: err}
	case NoRoom(err):
		return DiskFull(err)
	}
	return &Error{
		Kind: Internal, Code: "internal_error", Message: "internal error in " + what,
		Hint: "push again; tell the operator of this host, whose log says more", Err: err,
	}
}

// NoRoom tells whether an error is that of a disk, or of a quota, without room.
func NoRoom(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// CodeDiskFull is the code of whatever found no room, in whichever words.
const CodeDiskFull = "disk_full"

// DiskFull is for what found no room on a disk of the daemon's or containerd's (F107).
func DiskFull(err error) *Error {
	return &Error{
		Kind: TryAgain, Code: CodeDiskFull, Message: "a disk of this server is full", Err: err,
		Hint: "tell the operator of this host, who sees what could go with:  gc --dry-run",
	}
}
