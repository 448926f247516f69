package container_test

import (
	"net"
	"path/filepath"
	"testing"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/content/proxy"
	"google.golang.org/grpc"
	unsafely "google.golang.org/grpc/credentials/insecure"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/container"
)

// TestCutOff: F103. containerd that dies between two messages of something that is
// being written is away: the image is not at fault.
func TestCutOff(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "socket")
	l, err := net.Listen("unix", socket)
	must(t, err)
	server := grpc.NewServer()
	contentapi.RegisterContentServer(server, writable{})
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(unsafely.NewCredentials()))
	must(t, err)
	defer conn.Close()
	w, err := proxy.NewContentStore(conn).Writer(t.Context(), content.WithRef("blob"))
	must(t, err)
	server.Stop()
	must(t, <-ended)
	// The first message may still hear of the end; the next is told of it by nobody.
	for range 2 {
		_, err = w.Write([]byte("some of it"))
		if daeploy.KindOf(container.CutOff(err)) != daeploy.Unavailable {
			t.Errorf("%v, want one of kind Unavailable", container.CutOff(err))
		}
	}
}

// writable is a store of content that tells what it has, and takes nothing.
type writable struct {
	contentapi.UnimplementedContentServer
}

func (writable) Write(stream contentapi.Content_WriteServer) error {
	for {
		if _, err := stream.Recv(); err != nil {
			return err
		}
		if err := stream.Send(&contentapi.WriteContentResponse{Action: contentapi.WriteAction_STAT}); err != nil {
			return err
		}
	}
}
