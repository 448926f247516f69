package buildpipeline

import (
	"fmt"

	"github.com/daeploy/daeploy"
)

// settings are what was set for the app, as the build found it when it began.
type settings struct {
	variables map[string]string // E8 of S61
	kept      map[string]string // those of them that stay in the image
	secrets   map[string][]byte // files that the scripts see (S74)
	lent      []daeploy.Secret  // the same, without what they hold
}

// borrow reads what is set for the app, once for all of a build that begins.
func (a *attempt) borrow() error {
	a.settings = settings{}
	if a.Settings == nil {
		return nil
	}
	if err := a.readVariables(); err != nil {
		return err
	}
	// Before they are lent: one that is set in between then counts as set later than
	// what this build had.
	var err error
	if a.settings.lent, err = a.Settings.Secrets(a.Build.ID.App); err != nil {
		return fmt.Errorf("list the secrets of %s: %w", a.Build.ID.App, err)
	}
	if a.settings.secrets, err = a.Settings.LendSecrets(a.Build.ID); err != nil {
		return err
	}
	if n := len(a.settings.secrets); n > 0 {
		return a.log.Say(begin("secrets", count(n, "file")+" in /run/secrets"))
	}
	return nil
}

func (a *attempt) readVariables() error {
	list, err := a.Settings.Variables(a.Build.ID.App)
	if err != nil {
		return fmt.Errorf("read the variables of %s: %w", a.Build.ID.App, err)
	}
	a.settings.variables, a.settings.kept = map[string]string{}, map[string]string{}
	for _, v := range list {
		a.settings.variables[v.Name] = v.Value
		if v.Persist {
			a.settings.kept[v.Name] = v.Value
		}
	}
	return nil
}

// recall gets what a daemon must not show that takes the build up: the secrets
// that an earlier one gave, and the credentials in variables.
func (a *attempt) recall() (err error) {
	if a.Settings == nil {
		return nil
	}
	if err := a.readVariables(); err != nil {
		return err
	}
	a.settings.secrets, err = a.Settings.LentSecrets(a.Build.ID)
	return err
}
