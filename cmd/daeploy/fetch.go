package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/buildpipeline"
	"github.com/daeploy/daeploy/container/network"
)

// scripts fetches builders' scripts from where the operator allows it (S53).
// Which of the allowed URLs is asked a stranger decides, and a name may come to
// point to anything; so the address counts too.
type scripts struct {
	prefixes buildpipeline.URLPrefixes
	network  network.Config
}

const (
	scriptTime      = 30 * time.Second
	scriptRedirects = 3
)

var errScriptAddress = errors.New("scripts may not be at this address")

// Fetch reads what a URL answers, at most most bytes. What is not there is
// fs.ErrNotExist.
func (s scripts) Fetch(ctx context.Context, at string, most int64) ([]byte, error) {
	limited, cancel := context.WithTimeout(ctx, scriptTime)
	defer cancel()
	data, err := s.fetch(limited, at, most)
	if err == nil || errors.Is(err, fs.ErrNotExist) || ctx.Err() != nil {
		return data, err
	}
	why := network.Cause(err)
	if limited.Err() != nil {
		why = fmt.Sprintf("no answer within %s", scriptTime)
	}
	return nil, &daeploy.Error{Kind: daeploy.BuildFailed, Code: "script_fetch_failed", Message: why, Err: network.WithoutQueries(err)}
}

func (s scripts) fetch(ctx context.Context, at string, most int64) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, err
	}
	var proxied atomic.Bool
	transport := &http.Transport{
		MaxResponseHeaderBytes: 64 << 10,
		Proxy: func(r *http.Request) (*url.URL, error) {
			proxy, err := http.ProxyFromEnvironment(r)
			proxied.Store(proxy != nil)
			return proxy, err
		},
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if proxied.Load() { // it is the operator's, and may be anywhere
				return new(net.Dialer).DialContext(ctx, network, address)
			}
			return s.dial(ctx, network, address)
		},
	}
	defer transport.CloseIdleConnections()
	client := http.Client{Transport: transport, CheckRedirect: s.redirect}
	answer, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	switch answer.StatusCode {
	case http.StatusOK, http.StatusCreated:
	case http.StatusNotFound:
		return nil, fs.ErrNotExist
	default:
		return nil, fmt.Errorf("the answer is %d", answer.StatusCode)
	}
	data, err := io.ReadAll(io.LimitReader(answer.Body, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("it has more than %d bytes", most)
	}
	return data, err
}

func (s scripts) redirect(to *http.Request, via []*http.Request) error {
	switch {
	case len(via) > scriptRedirects:
		return fmt.Errorf("more than %d redirects", scriptRedirects)
	case !s.prefixes.Contain(to.URL):
		return errors.New("it redirects to where this server does not fetch")
	}
	return nil
}

// dial connects to no address of this host, and to none that is kept from builds
// too, such as the metadata services of clouds, unless a prefix has the address
// itself.
func (s scripts) dial(ctx context.Context, protocol, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	if _, err := netip.ParseAddr(host); err != nil || !s.prefixes.Names(host) {
		d.Control = func(_, address string, _ syscall.RawConn) error {
			err := s.network.CheckDial(address)
			if errors.Is(err, network.ErrForbidden) {
				err = fmt.Errorf("%w: %s", errScriptAddress, address)
			}
			return err
		}
	}
	return d.DialContext(ctx, protocol, address)
}
