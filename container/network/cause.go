package network

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
)

// Cause is what a pusher reads of why a host could not be asked: never an
// address of this host's network or its resolver, nor a URL with a query, which
// can be a key to something.
func Cause(err error) string {
	if name, ok := errors.AsType[*net.DNSError](err); ok {
		why := "the name server is in trouble" // DNSError.Err can have its address
		switch {
		case name.IsNotFound:
			why = "no such host"
		case name.IsTimeout:
			why = "no answer in time"
		}
		return fmt.Sprintf("the name %s cannot be looked up: %s", name.Name, why)
	}
	if network, ok := errors.AsType[net.Error](err); ok && network.Timeout() {
		return "no answer in time"
	}
	return queries.ReplaceAllString(innermost(err), noQuery)
}

// innermost is the text at the bottom of a chain of errors, where networks say
// what is the matter.
func innermost(err error) string {
	for next := err; next != nil; next = errors.Unwrap(err) {
		err = next
	}
	text, _, _ := strings.Cut(err.Error(), "\n")
	return text
}

var queries = regexp.MustCompile(`\?[^\s"]*`)

const noQuery = "?..."

// WithoutQueries gives the text of err, for the operator's log, without the
// queries of the URLs in it: stores are redirected to by URLs that are passwords
// themselves.
func WithoutQueries(err error) error {
	return errors.New(queries.ReplaceAllString(err.Error(), noQuery))
}
