package store

import (
	"errors"
	"fmt"
	"os"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/daeploy/daeploy"
)

// App reads an app. An unknown one is NotFound, with the nearest name as hint:
// ask only for those who may know what apps there are.
func (s *Store) App(name daeploy.AppName) (app daeploy.App, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		app, err = appIn(tx, name)
		return err
	})
	return app, err
}

// Apps lists all apps by name.
func (s *Store) Apps() (apps []daeploy.App, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketApps)
		return b.ForEach(func(k, _ []byte) error {
			app, _, err := get[daeploy.App](b, k)
			apps = append(apps, app)
			return err
		})
	})
	return apps, err
}

// CreateApp makes an app, or returns the one that is there. The numbers of an
// app that was deleted go on where they ended.
func (s *Store) CreateApp(name daeploy.AppName) (app daeploy.App, err error) {
	if _, err := daeploy.ParseAppName(string(name)); err != nil {
		return app, err
	}
	err = s.update(func(tx *bolt.Tx) error {
		app, err = createApp(tx, name)
		return err
	})
	return app, err
}

func createApp(tx *bolt.Tx, name daeploy.AppName) (daeploy.App, error) {
	app, found, err := get[daeploy.App](tx.Bucket(bucketApps), []byte(name))
	if err != nil {
		return app, err
	}
	if found {
		return app, errUnchanged
	}
	app = daeploy.App{
		Name: name, Created: time.Now().UTC(), Builds: number(tx.Bucket(bucketRetired).Get([]byte(name))),
	}
	if _, err := tx.Bucket(bucketBuilds).CreateBucket([]byte(name)); err != nil {
		return app, err
	}
	return app, put(tx.Bucket(bucketApps), []byte(name), app)
}

// SetBranch sets the deploy branch if the app has none yet, and returns the
// app as it is now.
func (s *Store) SetBranch(name daeploy.AppName, branch string) (app daeploy.App, err error) {
	err = s.update(func(tx *bolt.Tx) error {
		if app, err = appIn(tx, name); err != nil {
			return err
		}
		if app.Branch != "" {
			return errUnchanged
		}
		app.Branch = branch
		return put(tx.Bucket(bucketApps), []byte(name), app)
	})
	return app, err
}

// FixBranch sets the deploy branch for good, whatever a source says; "" lets sources
// say again, and keeps the branch that is set.
func (s *Store) FixBranch(name daeploy.AppName, branch string) (app daeploy.App, err error) {
	err = s.update(func(tx *bolt.Tx) error {
		if app, err = appIn(tx, name); err != nil {
			return err
		}
		before := app
		app.Fixed = branch != ""
		if app.Fixed {
			app.Branch = branch
		}
		if app == before {
			return errUnchanged
		}
		return put(tx.Bucket(bucketApps), []byte(name), app)
	})
	return app, err
}

// DeleteApp removes an app, its builds, logs, variables and secrets, for good. Only its
// highest build number is kept, so that a later app of that name can't be
// taken for it. While a build is queued or running it fails.
func (s *Store) DeleteApp(name daeploy.AppName) error {
	var gone []daeploy.BuildID
	err := s.update(func(tx *bolt.Tx) error {
		app, err := appIn(tx, name)
		if err != nil {
			return err
		}
		if gone, err = deleteBuilds(tx, name); err != nil {
			return err
		}
		dropped, err := forgetDropped(tx, name)
		if err != nil {
			return err
		}
		gone = append(gone, dropped...)
		return errors.Join(
			tx.Bucket(bucketRetired).Put([]byte(name), numberKey(app.Builds)),
			tx.Bucket(bucketApps).Delete([]byte(name)),
			tx.Bucket(bucketVariables).Delete([]byte(name)),
			tx.Bucket(bucketSecrets).Delete([]byte(name)),
		)
	})
	if err != nil {
		return err
	}
	// What is left after a crash here, the next Open removes. Not the whole
	// directory: an app of the same name may be writing there again.
	var all error
	for _, id := range gone {
		s.wake(id)
		all = errors.Join(all, s.removeLog(id))
	}
	_ = s.logs.Remove(string(name)) // if it is empty now
	return edge(all)
}

// removeRetiredLogs removes logs that a DeleteApp left behind. It goes by the
// record of deleted apps, not by what no record claims: after a restore from
// an old backup those are not the same.
func (s *Store) removeRetiredLogs() error {
	var names []string
	err := s.view(func(tx *bolt.Tx) error {
		apps := tx.Bucket(bucketApps)
		return tx.Bucket(bucketRetired).ForEach(func(k, _ []byte) error {
			if apps.Get(k) == nil {
				names = append(names, string(k))
			}
			return nil
		})
	})
	for _, name := range names {
		if _, missing := s.logs.Lstat(name); errors.Is(missing, os.ErrNotExist) {
			continue
		}
		s.log.Info("logs of a deleted app removed", "app", name)
		err = errors.Join(err, s.logs.RemoveAll(name))
	}
	return err
}

// appIn reads an app, or says which one may be meant.
func appIn(tx *bolt.Tx, name daeploy.AppName) (daeploy.App, error) {
	apps := tx.Bucket(bucketApps)
	app, found, err := get[daeploy.App](apps, []byte(name))
	if found || err != nil {
		return app, err
	}
	var known []string
	err = apps.ForEach(func(k, _ []byte) error {
		known = append(known, string(k))
		return nil
	})
	if err != nil {
		return app, err
	}
	return app, unknown("app", string(name), known)
}

// unknown is the answer to a name that is not there.
func unknown(what, name string, known []string) error {
	e := daeploy.Errorf(daeploy.NotFound, what+"_not_found", "there is no %s %.80q", what, name)
	if near := daeploy.Nearest(name, known); near != "" {
		e.Hint = fmt.Sprintf("did you mean %s?", near)
	}
	return e
}
