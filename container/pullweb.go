package container

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"

	"github.com/daeploy/daeploy"
)

const (
	connectTime = 10 * time.Second
	headerTime  = 30 * time.Second // until a registry begins to answer
	hasteTime   = 10 * time.Second // the most that a registry may make us wait between two tries
	maxAnswer   = 1 << 20          // bytes of a token service's answer
	maxHops     = 10
)

var (
	errPlain    = errors.New("plain HTTP is only spoken to registries that the operator lists as insecure")
	errRedirect = errors.New("its token service redirects to another host")
)

// web is how one pull or push reaches one registry, its token service and where
// it redirects to. All of these may be a stranger's, or his to choose:
//
//   - only the registry that the image's name begins with, or the token service
//     it names, is shown credentials, and no redirect carries them further;
//   - plain HTTP is for listed hosts, also on a redirect (errPlain);
//   - addresses are those that dial allows;
//   - the operator's certificates count for the host they were given for.
type web struct {
	engine   *Engine
	rules    *Rules
	ref      daeploy.ImageRef
	host     string // that is asked; of docker.io it is not the one in names
	can      docker.HostCapabilities
	patience time.Duration // until an answer begins

	mu         sync.Mutex
	transports map[string]*http.Transport
}

func (e *Engine) newWeb(ref daeploy.ImageRef) *web {
	host, err := docker.DefaultHost(ref.Host())
	if err != nil { // it has none to give
		host = ref.Host()
	}
	return &web{
		engine: e, rules: e.rules.Load(), ref: ref, host: host, can: docker.HostCapabilityPull | docker.HostCapabilityResolve,
		patience: headerTime, transports: map[string]*http.Transport{},
	}
}

func (w *web) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range w.transports {
		t.CloseIdleConnections()
	}
}

// hosts is docker.RegistryHosts of the one registry.
func (w *web) hosts(string) ([]docker.RegistryHost, error) {
	scheme := "https"
	if w.insecure(w.host) {
		scheme = "http"
	}
	tokens := &http.Client{Transport: bounded{w}, CheckRedirect: sameOrigin}
	return []docker.RegistryHost{{
		Client:     &http.Client{Transport: w, CheckRedirect: leaveCredentials},
		Authorizer: once{docker.NewDockerAuthorizer(docker.WithAuthClient(tokens), docker.WithAuthCreds(w.credentials))},
		Host:       w.host, Scheme: scheme, Path: "/v2",
		Capabilities: w.can,
	}}, nil
}

// unreadable says what of the operator's files could not be read.
type unreadable struct {
	what, host string
	err        error
}

func (u *unreadable) Error() string {
	return fmt.Sprintf("this server cannot read %s for %s", u.what, u.host)
}

func (u *unreadable) Unwrap() error { return u.err }

func (w *web) insecure(host string) bool {
	return slices.Contains(w.rules.InsecureRegistries, host) || host == w.host && slices.Contains(w.rules.InsecureRegistries, w.ref.Host())
}

// credentials gives those of the registry itself. Who else asks for some, by
// way of a redirect, gets none: the operator gave them for images of that name.
func (w *web) credentials(host string) (user, secret string, err error) {
	if host != w.host {
		return "", "", nil
	}
	user, secret, err = w.rules.Registries.Credentials(w.ref.Host())
	if err != nil {
		return "", "", &unreadable{what: "its credentials", host: w.ref.Host(), err: err}
	}
	return user, secret, nil
}

// RoundTrip does one request, to whichever host.
func (w *web) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !w.insecure(r.URL.Host) {
		return nil, fmt.Errorf("%w: %s", errPlain, r.URL.Host)
	}
	t, err := w.transport(r.URL.Host)
	if err != nil {
		return nil, err
	}
	if r.Body != nil {
		// containerd's pusher leaves the other end of a body open that it has given up,
		// and the transport would wait for it for ever.
		context.AfterFunc(r.Context(), func() { _ = r.Body.Close() })
	}
	response, err := t.RoundTrip(r)
	if err == nil && response.StatusCode == http.StatusTooManyRequests {
		// The resolver asks again up to four times, and at once.
		if err := sleep(r.Context(), haste(response.Header)); err != nil {
			response.Body.Close()
			return nil, err
		}
	}
	return response, err
}

// haste is how long to wait because a registry asks for it.
func haste(h http.Header) time.Duration {
	seconds, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil {
		seconds = 1
	}
	return min(max(time.Duration(seconds)*time.Second, time.Second), hasteTime)
}

func (w *web) transport(host string) (*http.Transport, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if t := w.transports[host]; t != nil {
		return t, nil
	}
	name := host
	if host == w.host {
		name = w.ref.Host()
	}
	pool, err := w.rules.Registries.CA(name)
	if err != nil {
		return nil, &unreadable{what: "the certificates", host: name, err: err}
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.ResponseHeaderTimeout, t.DialContext = w.patience, w.engine.dial
	if pool != nil {
		t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	w.transports[host] = t
	return t, nil
}

// bounded cuts answers that are read into memory whole.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := b.RoundTripper.RoundTrip(r)
	if err == nil {
		response.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(response.Body, maxAnswer), response.Body}
	}
	return response, err
}

// leaveCredentials is for requests to a registry: net/http would take
// Authorization along to other ports and to subdomains.
func leaveCredentials(r *http.Request, via []*http.Request) error {
	if len(via) >= maxHops {
		return fmt.Errorf("stopped after %d redirects", maxHops)
	}
	if !same(r.URL, via[0].URL) {
		r.Header.Del("Authorization")
	}
	return nil
}

// sameOrigin is for token requests, whose body is the password.
func sameOrigin(r *http.Request, via []*http.Request) error {
	if len(via) >= maxHops {
		return fmt.Errorf("stopped after %d redirects", maxHops)
	}
	if !same(r.URL, via[0].URL) {
		return errRedirect
	}
	return nil
}

func same(a, b *url.URL) bool { return a.Scheme == b.Scheme && strings.EqualFold(a.Host, b.Host) }

// once shows a password once: the resolver would repeat a refused one, and some
// registries lock an account after a few.
type once struct{ docker.Authorizer }

func (o once) AddResponses(ctx context.Context, responses []*http.Response) error {
	last := responses[len(responses)-1]
	if last.StatusCode == http.StatusUnauthorized && strings.HasPrefix(last.Request.Header.Get("Authorization"), "Basic ") {
		return docker.ErrInvalidAuthorization
	}
	return o.Authorizer.AddResponses(ctx, responses)
}
