package containertest

import (
	"context"
	"net"
	"os"
	"testing"

	version "github.com/containerd/containerd/api/services/version/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"
)

// Impostor serves gRPC at a socket until the test ends. It tells containerd's
// version, and has no other API; without a version it has none at all, as a socket
// that is for Kubernetes only.
func Impostor(t testing.TB, socket, says string) {
	t.Helper()
	if err := os.RemoveAll(socket); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	if says != "" {
		version.RegisterVersionServer(server, teller{version: says})
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-ended; err != nil {
			t.Errorf("the impostor at %s: %v", socket, err)
		}
	})
}

type teller struct {
	version.UnimplementedVersionServer
	version string
}

func (t teller) Version(context.Context, *emptypb.Empty) (*version.VersionResponse, error) {
	return &version.VersionResponse{Version: t.version, Revision: "impostor"}, nil
}
