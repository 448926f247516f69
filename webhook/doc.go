// Package webhook tells others what has happened: it follows the events and
// posts those that a receiver wants to its URL, signed.
//
// Each receiver has a place in the events that survives a restart, and a
// goroutine of its own. An event is tried until the receiver takes it, so it can
// arrive more than once, each time with the same delivery id; in order; and it
// is skipped when it has become too old or too many wait (F136). Nobody waits
// for a receiver: not another one, not a build.
//
// A receiver is trusted with what it is sent, and with nothing else: no redirect
// is followed, and no address of this host is connected to, unless the operator
// says so.
package webhook
