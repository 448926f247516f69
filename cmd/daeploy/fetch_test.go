package main

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/buildpipeline"
	"github.com/daeploy/daeploy/container/network"
)

// S53: scripts come from no address of this host, unless a prefix has it.
func TestScriptsOfThisHost(t *testing.T) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, a := range addrs {
		addr := a.(*net.IPNet).IP
		if addr.IsLinkLocalUnicast() {
			continue
		}
		tried++
		l, err := net.Listen("tcp", net.JoinHostPort(addr.String(), "0"))
		if err != nil {
			t.Fatal(err)
		}
		asked := false
		server := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true })}}
		server.Start()
		defer server.Close()
		for prefix, allowed := range map[string]bool{server.URL: true, "http://scripts.example": false} {
			prefixes, err := buildpipeline.ParseURLPrefixes([]string{prefix})
			if err != nil {
				t.Fatal(err)
			}
			asked = false
			_, err = scripts{prefixes, network.Config{AllowPrivate: true}}.Fetch(t.Context(), server.URL+"/assemble", 100)
			if asked != allowed || (err == nil) != allowed {
				t.Errorf("%s with prefix %s: asked %v, %v", server.URL, prefix, asked, err)
			}
		}
	}
	if tried == 0 {
		t.Fatal("this host has no address")
	}
}

// S53: why a script could not be fetched tells the pusher no address of this
// host's network; the operator's log has it.
func TestScriptsFault(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	for prefix, want := range map[string]string{
		"http://" + address:      "connection refused",
		"http://scripts.example": "scripts may not be at this address",
	} {
		prefixes, err := buildpipeline.ParseURLPrefixes([]string{prefix})
		if err != nil {
			t.Fatal(err)
		}
		_, err = scripts{prefixes, network.Config{}}.Fetch(t.Context(), "http://"+address+"/assemble", 100)
		var told *daeploy.Error
		if !errors.As(err, &told) || told.Message != want || !strings.Contains(err.Error(), address) {
			t.Errorf("%v; want message %q, and for the operator %s", err, want, address)
		}
	}
}
