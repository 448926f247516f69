package container

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container/network"
)

// pushError finds the words for why an image could not be pushed under a name:
// kind Unavailable for what another try may find mended, else Failure.
func (e *Engine) pushError(ctx context.Context, name daeploy.ImageRef, err error) error {
	if err == nil || errors.As(err, new(*daeploy.Error)) {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	out := &daeploy.Error{Kind: daeploy.Failure, Code: "publish_refused", Err: network.WithoutQueries(err)}
	host := name.Host()
	if fault, ok := errors.AsType[*unreadable](err); ok {
		out.Code, out.Message, out.Hint = "publish_denied", fault.Error(), "the operator's log says more"
		return out
	}
	code := 0
	if status, ok := errors.AsType[remoteerrors.ErrUnexpectedStatus](err); ok {
		code = status.StatusCode
	}
	switch {
	case code == http.StatusUnauthorized, code == http.StatusForbidden, errors.Is(err, docker.ErrInvalidAuthorization):
		out.Code = "publish_denied"
		out.Message = fmt.Sprintf("the registry does not let this server write to %s", name.Repository())
		out.Hint = "the operator can add credentials for " + host
		if _, secret, err := e.cfg.Registries.Credentials(host); err == nil && secret != "" {
			out.Hint = "the operator can check the credentials for " + host + " and what they may do there"
		}
	case code == http.StatusNotFound:
		out.Code = "publish_missing"
		out.Message = fmt.Sprintf("the registry has no place for %s", name.Repository())
		out.Hint = "make the repository or its project on " + host + ", or correct [registry.push]"
	case code >= 400 && code < 500 && code != http.StatusRequestTimeout && code != http.StatusTooManyRequests, refusedHere(err):
		out.Message = fmt.Sprintf("%s cannot be pushed: %s", name.Repository(), cause(err))
		out.Hint = "the operator can check " + host + " and [registry]"
	default:
		out.Kind, out.Code = daeploy.Unavailable, "publish_unreachable"
		out.Message = fmt.Sprintf("%s could not be pushed: %s", name.Repository(), cause(err))
		out.Hint = "the operator can check " + host
	}
	return out
}

// refusedHere tells whether it is this host that does not go on, by its
// configuration.
func refusedHere(err error) bool {
	for _, rule := range []error{errAddress, errPlain, errRedirect, http.ErrSchemeMismatch} {
		if errors.Is(err, rule) {
			return true
		}
	}
	return false
}
