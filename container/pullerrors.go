package container

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container/network"
)

// passing tells whether the next try may fare better: the network, or a
// registry in trouble. A registry that is silent, or wants less haste, was
// given its time by the resolver already.
func passing(err error) bool {
	if status, ok := errors.AsType[remoteerrors.ErrUnexpectedStatus](err); ok {
		return status.StatusCode >= 500 || status.StatusCode == http.StatusRequestTimeout
	}
	for _, final := range []error{docker.ErrInvalidAuthorization, errAddress, errPlain, errRedirect, http.ErrSchemeMismatch} {
		if errors.Is(err, final) {
			return false
		}
	}
	if fault, ok := errors.AsType[net.Error](err); ok && fault.Timeout() {
		return false
	}
	if name, ok := errors.AsType[*net.DNSError](err); ok && name.IsNotFound {
		return false
	}
	return !errors.As(err, new(*imageFault)) && !errors.As(err, new(*unreadable)) && !errors.As(err, new(*daeploy.Error)) &&
		!errors.As(err, new(*tls.CertificateVerificationError)) &&
		!errdefs.IsNotFound(err) && !errdefs.IsUnauthorized(err) && !errdefs.IsPermissionDenied(err) &&
		!errdefs.IsFailedPrecondition(err) && !errdefs.IsInvalidArgument(err)
}

// builderError finds the words for the pusher (s2i-contract.md, section 11).
func (e *Engine) builderError(ctx context.Context, ref daeploy.ImageRef, err error) error {
	if errors.As(err, new(*daeploy.Error)) {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if fault, ok := errors.AsType[*imageFault](err); ok {
		return fault.words(ref)
	}
	if fault, ok := errors.AsType[*unreadable](err); ok {
		return &daeploy.Error{
			Kind: daeploy.BuildFailed, Code: "builder_denied", Err: fault.err,
			Message: fmt.Sprintf("%s could not be pulled: %s", ref, fault), Hint: "tell the operator, whose log says more",
		}
	}
	code := 0
	if status, ok := errors.AsType[remoteerrors.ErrUnexpectedStatus](err); ok {
		code = status.StatusCode
	} else if gone := away(err); errors.As(gone, new(*daeploy.Error)) {
		return gone // no registry speaks containerd's protocol
	}
	switch {
	case code == http.StatusUnauthorized, code == http.StatusForbidden, errors.Is(err, docker.ErrInvalidAuthorization),
		errdefs.IsUnauthorized(err), errdefs.IsPermissionDenied(err):
		return e.denied(ref, err)
	case code == http.StatusNotFound, errdefs.IsNotFound(err):
		return missing(ref, network.WithoutQueries(err))
	case errdefs.IsFailedPrecondition(err):
		return (&imageFault{code: "invalid", problem: "what its registry sends does not match its digest or size"}).words(ref)
	}
	hint := "push again later; the operator can check " + ref.Host()
	if errors.As(err, new(*tls.CertificateVerificationError)) {
		hint = "the operator can check " + ref.Host() + ", or name its authority: ca in [registry.hosts]"
	}
	return &daeploy.Error{
		Kind: daeploy.BuildFailed, Code: "builder_unreachable", Err: network.WithoutQueries(err), Hint: hint,
		Message: fmt.Sprintf("%s could not be pulled: %s", ref, cause(err)),
	}
}

// denied tells whether the operator has to add credentials or to correct them.
// It names none of them.
func (e *Engine) denied(ref daeploy.ImageRef, err error) error {
	hint := "check the name, or ask the operator to add credentials for " + ref.Host()
	if _, secret, err := e.rules.Load().Registries.Credentials(ref.Host()); err == nil && secret != "" {
		hint = "check the name, or ask the operator: the credentials for " + ref.Host() + " do not open it"
	}
	return &daeploy.Error{
		Kind: daeploy.BuildFailed, Code: "builder_denied", Err: network.WithoutQueries(err), Hint: hint,
		Message: fmt.Sprintf("the registry does not let this server read %s", ref),
	}
}

func missing(ref daeploy.ImageRef, err error) *daeploy.Error {
	hint := "check name and tag in .daeploy"
	if ref.Host() == daeploy.ImageDomain {
		hint = "check name and tag; the operator knows which builders are here"
	}
	return &daeploy.Error{
		Kind: daeploy.BuildFailed, Code: "builder_missing", Err: err,
		Message: fmt.Sprintf("builder image %s was not found", ref), Hint: hint,
	}
}

// absent is missing for an image that no registry was asked for.
func absent(ref daeploy.ImageRef, err error) error {
	e := missing(ref, err)
	if ref.Host() != daeploy.ImageDomain {
		e.Message = fmt.Sprintf("builder image %s was not found on this server, which pulls none", ref)
		e.Hint = "ask the operator for it: daeploy builders pull " + string(ref)
	}
	return e
}

// words are those of s2i-contract.md, section 11.
func (f *imageFault) words(ref daeploy.ImageRef) error {
	e := &daeploy.Error{Kind: daeploy.BuildFailed, Code: "builder_" + f.code, Err: f}
	switch f.code {
	case "missing":
		return missing(ref, f)
	case "platform":
		e.Message = fmt.Sprintf("%s has no version for %s", ref, platforms.DefaultString())
		e.Hint = "it offers: " + strings.Join(f.offers, ", ")
	case "onbuild":
		e.Message = fmt.Sprintf("%s has ONBUILD instructions; they are not run here", ref)
		e.Hint = "use the variant without ONBUILD"
	default:
		e.Message = fmt.Sprintf("%s cannot be used as a builder: %s", ref, f.problem)
		e.Hint = cmp.Or(f.hint, "the image must be made anew")
	}
	return e
}

// cause is what the pusher reads of an error, as network.Cause, which does not
// know registries.
func cause(err error) string {
	if status, ok := errors.AsType[remoteerrors.ErrUnexpectedStatus](err); ok {
		return strings.TrimSpace(fmt.Sprintf("its registry answers %d %s", status.StatusCode, http.StatusText(status.StatusCode)))
	}
	for _, known := range []error{errPlain, errRedirect, http.ErrSchemeMismatch} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	return network.Cause(err)
}
