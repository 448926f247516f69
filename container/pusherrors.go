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
	fault := e.pushFault(name, err)
	fault.Err = network.WithoutQueries(err)
	return fault
}

// pushFault is pushError without the cause, which is for the operator.
func (e *Engine) pushFault(name daeploy.ImageRef, err error) *daeploy.Error {
	host, repository := name.Host(), name.Repository()
	if fault, ok := errors.AsType[*unreadable](err); ok {
		return &daeploy.Error{Kind: daeploy.Failure, Code: "publish_denied", Message: fault.Error(), Hint: "the operator's log says more"}
	}
	code := 0
	if status, ok := errors.AsType[remoteerrors.ErrUnexpectedStatus](err); ok {
		code = status.StatusCode
	}
	switch {
	case code == http.StatusUnauthorized, code == http.StatusForbidden, errors.Is(err, docker.ErrInvalidAuthorization):
		hint := "the operator can add credentials for " + host
		if _, secret, err := e.rules.Load().Registries.Credentials(host); err == nil && secret != "" {
			hint = "the operator can check the credentials for " + host + " and what they may do there"
		}
		return &daeploy.Error{
			Kind: daeploy.Failure, Code: "publish_denied", Hint: hint,
			Message: "the registry does not let this server write to " + repository,
		}
	case code == http.StatusNotFound:
		return &daeploy.Error{
			Kind: daeploy.Failure, Code: "publish_missing", Message: "the registry has no place for " + repository,
			Hint: "make the repository or its project on " + host + ", or correct [registry.push]",
		}
	case code >= 400 && code < 500 && code != http.StatusRequestTimeout && code != http.StatusTooManyRequests, refusedHere(err):
		return &daeploy.Error{
			Kind: daeploy.Failure, Code: "publish_refused", Message: fmt.Sprintf("%s cannot be pushed: %s", repository, cause(err)),
			Hint: "the operator can check " + host + " and [registry]",
		}
	}
	return &daeploy.Error{
		Kind: daeploy.Unavailable, Code: "publish_unreachable", Message: fmt.Sprintf("%s could not be pushed: %s", repository, cause(err)),
		Hint: "the operator can check " + host,
	}
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
