package control

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/daeploy/daeploy"
)

func (s *session) schema() *cobra.Command {
	cmd := &cobra.Command{
		Use: "schema", Short: "print the JSON Schema of .daeploy, for editors", Args: words(0, 0),
		Example: "ssh -p 2222 daeploy@HOST schema > daeploy.schema.json",
	}
	return s.declare(anyone, cmd, func(context.Context, daeploy.BuildID, []string) error {
		_, err := s.out.Write(s.Schema)
		return err
	})
}
