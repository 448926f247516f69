package main

import (
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

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
