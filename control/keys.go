package control

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/daeploy/daeploy"
)

const maxKeyText = 64 << 10 // bytes; the longest honest key has 3 KiB

func (s *session) keys() *cobra.Command {
	return s.group("keys", "who may push and read", s.keysList(), s.keysAdd(), s.keysRemove())
}

func (s *session) keysList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "list the keys", Args: words(0, 0),
		Example: "daeploy keys list",
	}
	return s.declare(admins, s.answers(cmd, "array of key"), func(context.Context, daeploy.BuildID, []string) error {
		keys, err := s.Keys.Keys()
		if err != nil {
			return err
		}
		list := make([]keyJSON, len(keys))
		for i, k := range keys {
			list[i] = newKeyJSON(k)
		}
		if s.json {
			return s.printJSON(list)
		}
		t := s.table(-1, "NAME", "RIGHTS", "AGE", "FINGERPRINT")
		for i, k := range list {
			t.row(clip(k.Name, 24), clip(rights(keys[i]), 24), s.since(k.Added), string(k.ID))
		}
		t.end()
		return nil
	})
}

func (s *session) keysAdd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "add NAME [FILE|-] {--admin | --app APP... --read APP...}", Short: "let a public key in", Args: words(1, 2),
		Long: "Reads one OpenSSH public key from standard input; on the host, FILE may be one.\n" +
			"The key may push to, read and change each --app, and only read each --read:\n" +
			"fetch it, and see its builds, logs, events, images and variables. With --admin\n" +
			"it may do everything.",
		Example: "daeploy keys add anna anna.pub --app blog --read shop\n" +
			"ssh -p 2222 daeploy@HOST keys add anna --app blog < anna.pub",
	}
	cmd.Flags().Bool("admin", false, "everything is allowed")
	cmd.Flags().StringArray("app", nil, "`APP` the key may push to, read and change; may be repeated")
	cmd.Flags().StringArray("read", nil, "`APP` the key may only read; may be repeated")
	s.answers(cmd, "key")
	return s.declare(admins, cmd, func(_ context.Context, _ daeploy.BuildID, args []string) error {
		k, err := s.newKey(cmd, args)
		if err != nil {
			return err
		}
		if err := s.Keys.AddKey(k); err != nil {
			return err
		}
		s.tell(daeploy.Event{Kind: daeploy.EventKeyAdded, Name: k.Name, Message: fmt.Sprintf("%s (%s)", k.ID, rights(k))})
		if s.json {
			return s.printJSON(newKeyJSON(k))
		}
		s.print("added %s (%s) %s", k.Name, rights(k), k.ID)
		return nil
	})
}

// newKey checks the words before it reads standard input, which can take as
// long as its owner likes.
func (s *session) newKey(cmd *cobra.Command, args []string) (daeploy.Key, error) {
	name, err := daeploy.ParseKeyName(args[0])
	if err != nil {
		return daeploy.Key{}, err
	}
	k, err := newRights(cmd)
	if err != nil {
		return daeploy.Key{}, err
	}
	if err := onlyStdin(cmd, args[1:]); err != nil {
		return daeploy.Key{}, err
	}
	text, err := io.ReadAll(io.LimitReader(s.stdin, maxKeyText+1))
	switch {
	case err != nil:
		return daeploy.Key{}, &daeploy.Error{
			Kind: daeploy.Failure, Code: "stdin_broken", Message: "standard input broke off", Err: err,
		}
	case len(text) > maxKeyText:
		return daeploy.Key{}, usageError("give one OpenSSH public key, such as the file id_ed25519.pub",
			"standard input has more than %s; that is no public key", size(maxKeyText))
	case strings.TrimSpace(string(text)) == "":
		return daeploy.Key{}, usageError("put the public key there: keys add "+name+" ... < id_ed25519.pub",
			"there is no key on standard input")
	}
	public, err := s.ParseKey(text)
	k.ID, k.Type, k.Public = public.ID, public.Type, public.Public
	k.Name, k.Added = name, s.Now().UTC()
	return k, err
}

// newRights is a key with nothing but what the flags let it do. What it may push
// to it may read anyway.
func newRights(cmd *cobra.Command) (k daeploy.Key, err error) {
	k.Admin, _ = cmd.Flags().GetBool("admin")
	if k.Apps, err = appsOf(cmd, "app"); err != nil {
		return k, err
	}
	if k.Read, err = appsOf(cmd, "read"); err != nil {
		return k, err
	}
	if k.Admin == (len(k.Apps)+len(k.Read) > 0) {
		return k, usageError("--app APP lets it push to that app, --read APP only read it, --admin lets it do everything",
			"say what the key may do: --admin, or --app or --read for each of its apps")
	}
	k.Read = slices.DeleteFunc(k.Read, func(app daeploy.AppName) bool { return slices.Contains(k.Apps, app) })
	return k, nil
}

// appsOf reads a flag that names apps: sorted, each once.
func appsOf(cmd *cobra.Command, flag string) (apps []daeploy.AppName, err error) {
	names, _ := cmd.Flags().GetStringArray(flag)
	for _, n := range names {
		app, err := daeploy.ParseAppName(n)
		if err != nil {
			return nil, err
		}
		apps = append(apps, app)
	}
	slices.Sort(apps)
	return slices.Compact(apps), nil
}

func (s *session) keysRemove() *cobra.Command {
	cmd := &cobra.Command{
		Use: "remove NAME", Short: "shut a key out", Args: words(1, 1),
		Example: "daeploy keys remove anna",
	}
	return s.declare(admins, s.answers(cmd, "key"), func(_ context.Context, _ daeploy.BuildID, args []string) error {
		name, err := daeploy.ParseKeyName(args[0])
		if err != nil {
			return err
		}
		k, err := s.Keys.RemoveKey(name)
		if err != nil {
			return err
		}
		s.tell(daeploy.Event{Kind: daeploy.EventKeyRemoved, Name: k.Name, Message: fmt.Sprintf("%s (%s)", k.ID, rights(k))})
		if s.json {
			return s.printJSON(newKeyJSON(k))
		}
		s.print("removed %s %s", k.Name, k.ID)
		return nil
	})
}

// rights are a key's rights in a word or a few: "admin", or "blog,read:shop".
func rights(k daeploy.Key) string {
	if k.Admin {
		return "admin"
	}
	var names []string
	for _, a := range k.Apps {
		names = append(names, string(a))
	}
	for _, a := range k.Read {
		names = append(names, "read:"+string(a))
	}
	return strings.Join(names, ",")
}

func newKeyJSON(k daeploy.Key) keyJSON {
	return keyJSON{
		ID: k.ID, Name: k.Name, Type: k.Type, Public: k.Public,
		Admin: k.Admin, Apps: append([]daeploy.AppName{}, k.Apps...), Read: append([]daeploy.AppName{}, k.Read...),
		Added: stamp(k.Added),
	}
}
