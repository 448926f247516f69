package control

import (
	"context"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/daeploy/daeploy"
)

func (s *session) secrets() *cobra.Command {
	return s.groupOf("secrets", "secret files of an app's builds", s.secretsList(), s.secretsSet(), s.secretsUnset())
}

func (s *session) secretsList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list APP", Short: "list an app's secrets, without what is in them", Args: words(1, 1),
		Example: "daeploy secrets blog",
	}
	return s.declare(ofApp, s.answers(cmd, "array of secret"), func(_ context.Context, id daeploy.BuildID, _ []string) error {
		all, err := s.Settings.Secrets(id.App)
		if err != nil {
			return err
		}
		list := make([]secretJSON, len(all))
		for i, v := range all {
			list[i] = newSecretJSON(v)
		}
		if s.json {
			return s.printJSON(list)
		}
		t := s.table(-1, "NAME", "SIZE", "AGE")
		for _, v := range list {
			t.row(v.Name, size(int64(v.Size)), s.since(v.Set))
		}
		t.end()
		return nil
	})
}

func (s *session) secretsSet() *cobra.Command {
	cmd := &cobra.Command{
		Use: "set APP NAME", Short: "give an app's builds a secret file", Args: noSecretWord,
		Long: "Reads the value from standard input, byte for byte, also a line end. The next\n" +
			"build finds it in the file /run/secrets/NAME. It comes into no image or record\n" +
			"by itself, and is masked in logs if it is one line of 8 bytes or more. Whoever\n" +
			"may push to the app can write an assemble that sends it anywhere.",
		Example: "daeploy secrets set blog npmrc < .npmrc\nprintf %s \"$TOKEN\" | ssh -p 2222 daeploy@HOST secrets set blog token",
	}
	return s.declare(ofApp, s.answers(cmd, "secret"), func(_ context.Context, id daeploy.BuildID, args []string) error {
		name := args[1]
		// The name first: to read can take as long as its owner likes.
		if err := daeploy.CheckSecret(name, []byte{0}); err != nil {
			return err
		}
		value, err := io.ReadAll(io.LimitReader(s.stdin, daeploy.MaxSettingBytes+1))
		switch {
		case err != nil:
			return &daeploy.Error{Kind: daeploy.Failure, Code: "stdin_broken", Message: "standard input broke off", Err: err}
		case len(value) == 0:
			return usageError("put the value there: secrets set "+string(id.App)+" "+name+" < FILE", "there is nothing on standard input")
		}
		if err := daeploy.CheckSecret(name, value); err != nil {
			return err
		}
		if err := s.Settings.SetSecret(id.App, name, value); err != nil {
			return err
		}
		s.tell(daeploy.Event{Kind: daeploy.EventSecretSet, App: id.App, Name: name})
		if s.json {
			return s.printJSON(newSecretJSON(daeploy.Secret{Name: name, Size: len(value), Set: s.Now()}))
		}
		s.print("set for the next build of %s: %s, %s", id.App, name, size(int64(len(value))))
		return nil
	})
}

// noSecretWord refuses a value among the words, and shows it to nobody.
func noSecretWord(cmd *cobra.Command, args []string) error {
	if err := words(2, -1)(cmd, args); err != nil {
		return err
	}
	if len(args) > 2 || strings.Contains(args[1], "=") {
		return usageError(usageLine(cmd)+" < FILE", "the value of a secret comes on standard input, where no list of processes shows it")
	}
	return nil
}

func (s *session) secretsUnset() *cobra.Command {
	cmd := &cobra.Command{
		Use: "unset APP NAME...", Short: "forget secrets", Args: words(2, -1),
		Example: "daeploy secrets unset blog token",
	}
	return s.declare(ofApp, s.answers(cmd, "array of names"), func(_ context.Context, id daeploy.BuildID, args []string) error {
		return s.unset(id.App, args[1:], s.Settings.UnsetSecrets, daeploy.EventSecretUnset)
	})
}

func newSecretJSON(v daeploy.Secret) secretJSON { return secretJSON{v.Name, v.Size, stamp(v.Set)} }
