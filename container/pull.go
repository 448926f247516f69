package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/containerd/platforms"
	"github.com/sirupsen/logrus"

	"github.com/daeploy/daeploy"
)

const (
	pullTries   = 3
	pullBackoff = 500 * time.Millisecond // doubled after each try
	headerTime  = 30 * time.Second       // until a registry begins to answer
)

// Pull asks the registry for an image, unpacks it and lets it stay. progress,
// if not nil, is called at most once a second, from one goroutine, and not after
// the return.
func (e *Engine) Pull(ctx context.Context, ref daeploy.ImageRef, progress func(daeploy.Progress)) (daeploy.Image, error) {
	c, err := e.connect()
	if err != nil {
		return daeploy.Image{}, err
	}
	ctx, done, err := c.WithLease(ctx)
	if err != nil {
		return daeploy.Image{}, fmt.Errorf("create lease: %w", away(err))
	}
	defer func() {
		clean, cancel := cleanup(ctx)
		defer cancel()
		if err := done(clean); err != nil {
			e.cfg.Log.Warn("lease of a pull left behind", "ref", ref, "err", err)
		}
	}()
	p, err := e.obtain(ctx, c, ref, daeploy.PullAlways, progress)
	return p.Image, err
}

// obtain finds or pulls an image and unpacks it. ctx holds a lease. Errors have
// the codes and words of s2i-contract.md, section 11.
func (e *Engine) obtain(ctx context.Context, c *containerd.Client, ref daeploy.ImageRef, policy daeploy.PullPolicy,
	progress func(daeploy.Progress),
) (platformImage, error) {
	local := ref.Host() == daeploy.ImageDomain
	if policy != daeploy.PullAlways || local {
		p, err := e.present(ctx, c, ref)
		if err == nil {
			return p, nil
		}
		if !errdefs.IsNotFound(err) {
			return p, e.builderError(ctx, ref, err)
		}
		if local || policy == daeploy.PullNever {
			return p, missing(ref, err)
		}
	}
	return e.pull(ctx, c, ref, progress)
}

// present looks for the image in the store: NotFound also if a part of it that
// is needed has gone.
func (e *Engine) present(ctx context.Context, c *containerd.Client, ref daeploy.ImageRef) (platformImage, error) {
	record, err := c.ImageService().Get(ctx, string(ref))
	if err != nil {
		return platformImage{}, err
	}
	p, err := readImage(ctx, c, record)
	if err == nil {
		err = p.unpack(ctx, c)
	}
	if err == nil && len(p.config.Config.OnBuild) > 0 {
		err = &imageFault{code: "onbuild"}
	}
	return p, err
}

func (e *Engine) pull(ctx context.Context, c *containerd.Client, ref daeploy.ImageRef, progress func(daeploy.Progress)) (platformImage, error) {
	var err error
	for try := range pullTries {
		if try > 0 {
			if err := sleep(ctx, pullBackoff<<try); err != nil {
				return platformImage{}, err
			}
		}
		if err = e.pullOnce(ctx, c, ref, progress); err == nil || ctx.Err() != nil || !passing(err) {
			break
		}
		e.cfg.Log.Info("pull goes on", "ref", ref, "err", err)
	}
	var p platformImage
	if err == nil {
		p, err = e.present(ctx, c, ref)
		p.Pulled = true
	}
	if err != nil {
		return p, e.builderError(ctx, ref, err)
	}
	return p, nil
}

func (e *Engine) pullOnce(ctx context.Context, c *containerd.Client, ref daeploy.ImageRef, progress func(daeploy.Progress)) error {
	// The resolver tells its steps to a logger of its own; our error says it all.
	quiet := logrus.New()
	quiet.SetOutput(io.Discard)
	ctx = log.WithLogger(ctx, logrus.NewEntry(quiet))
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout, transport.DialContext = headerTime, e.dial
	defer transport.CloseIdleConnections()
	web := &http.Client{Transport: transport}
	auth := docker.NewDockerAuthorizer(docker.WithAuthClient(web), docker.WithAuthCreds(e.credentials))
	resolver := docker.NewResolver(docker.ResolverOptions{Hosts: docker.ConfigureDefaultRegistries(
		docker.WithClient(web), docker.WithAuthorizer(auth),
		docker.WithPlainHTTP(func(host string) (bool, error) {
			return slices.Contains(e.cfg.InsecureRegistries, host), nil
		}),
	)})
	_, target, err := resolver.Resolve(ctx, string(ref))
	if err != nil {
		return fmt.Errorf("resolve: %w", err)
	}
	w := &pullWatch{store: c.ContentStore(), report: progress}
	defer w.follow(ctx)()
	_, err = c.Pull(ctx, string(ref), containerd.WithResolver(resolver), containerd.WithImageHandler(w.handler()),
		containerd.WithPlatformMatcher(platforms.Default()))
	if errdefs.IsNotFound(err) {
		// The name was there a moment ago: it is the platform that is not.
		if _, fault := choose(ctx, c.ContentStore(), target); errors.As(fault, new(*imageFault)) {
			return fault
		}
	}
	return err
}

func (e *Engine) credentials(host string) (string, string, error) {
	if e.cfg.Credentials == nil {
		return "", "", nil
	}
	return e.cfg.Credentials(host)
}

// passing tells whether the next try may fare better: the network, a registry
// in trouble, or one that wants less haste.
func passing(err error) bool {
	var status remoteerrors.ErrUnexpectedStatus
	switch {
	case errors.As(err, &status):
		return status.StatusCode >= 500 || status.StatusCode == http.StatusTooManyRequests
	case errors.As(err, new(*imageFault)), errors.Is(err, docker.ErrInvalidAuthorization), errors.Is(err, errAddress),
		errdefs.IsNotFound(err), errdefs.IsUnauthorized(err), errdefs.IsPermissionDenied(err),
		errdefs.IsFailedPrecondition(err), errdefs.IsInvalidArgument(err):
		return false
	}
	return true
}

// builderError finds the words for the pusher.
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
	code := 0
	if status, ok := errors.AsType[remoteerrors.ErrUnexpectedStatus](err); ok {
		code = status.StatusCode
	}
	switch {
	case code == http.StatusUnauthorized, code == http.StatusForbidden, errors.Is(err, docker.ErrInvalidAuthorization),
		errdefs.IsUnauthorized(err), errdefs.IsPermissionDenied(err):
		return &daeploy.Error{
			Kind: daeploy.BuildFailed, Code: "builder_denied", Err: err,
			Message: fmt.Sprintf("the registry does not let this server read %s", ref),
			Hint:    "check the name, or ask the operator to add credentials for " + ref.Host(),
		}
	case code == http.StatusNotFound, errdefs.IsNotFound(err):
		return missing(ref, err)
	case errdefs.IsFailedPrecondition(err):
		return (&imageFault{code: "invalid", problem: "what its registry sends does not match its digest"}).words(ref)
	}
	return &daeploy.Error{
		Kind: daeploy.BuildFailed, Code: "builder_unreachable", Err: err,
		Message: fmt.Sprintf("%s could not be pulled: %s", ref, innermost(err)),
		Hint:    "push again later; the operator can check " + ref.Host(),
	}
}

func missing(ref daeploy.ImageRef, err error) error {
	hint := "check name and tag in .daeploy"
	if ref.Host() == daeploy.ImageDomain {
		hint = "see what this server has: daeploy builders"
	}
	return &daeploy.Error{
		Kind: daeploy.BuildFailed, Code: "builder_missing", Err: err,
		Message: fmt.Sprintf("builder image %s was not found", ref), Hint: hint,
	}
}

// words are those of s2i-contract.md, section 11.
func (f *imageFault) words(ref daeploy.ImageRef) error {
	e := &daeploy.Error{Kind: daeploy.BuildFailed, Code: "builder_" + f.code, Err: f}
	switch f.code {
	case "platform":
		e.Message = fmt.Sprintf("%s has no version for %s", ref, platforms.DefaultString())
		e.Hint = "it offers: " + strings.Join(f.offers, ", ")
	case "onbuild":
		e.Message = fmt.Sprintf("%s has ONBUILD instructions; they are not run here", ref)
		e.Hint = "use the variant without ONBUILD"
	default:
		e.Message = fmt.Sprintf("%s cannot be used as a builder: %s", ref, f.problem)
		e.Hint = "the image must be made anew"
	}
	return e
}

// innermost is the text at the bottom of a chain of errors, where networks say
// what is the matter.
func innermost(err error) string {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			text, _, _ := strings.Cut(err.Error(), "\n")
			return text
		}
		err = next
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
