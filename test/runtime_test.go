package test_test

import "github.com/daeploy/daeploy/container/containertest"

func (t *teller) doRuntimes([]string) error { return t.importRuntimes() }

// importRuntimes brings runtime images in: full is the contract's R1, bare its
// R2.
func (s *story) importRuntimes() error {
	scripts := []containertest.File{
		containertest.Script("opt/scripts/assemble-runtime", "#!/bin/sh\nset -e\necho \"stock assemble-runtime as $(id -u):$(id -g) in $(pwd)\"\necho finished >$HOME/finished\n"),
		containertest.Script("opt/scripts/run", "#!/bin/sh\necho \"stock run of the runtime image: $(cat /srv/app/a.txt)\"\n"),
		{Path: "srv/app", Dir: true},
		{Path: "srv/app/kept", Content: "kept\n"},
		{Path: "home", Dir: true, UID: 1001},
	}
	config := map[string]any{
		"Env": []string{"PATH=/bin", "FROM_RUNTIME=yes"}, "WorkingDir": "/srv/app", "Entrypoint": []string{"/bin/env"}, "User": "default",
		"Labels": map[string]string{
			"io.openshift.s2i.scripts-url": "image:///opt/scripts", "io.openshift.s2i.assemble-input-files": "/app/a.txt;/app/dir/:sub/dir",
			"own": "label",
		},
	}
	for _, image := range []containertest.Image{
		{Name: "daeploy.local/builders/full:1", Shell: true, Layers: [][]containertest.File{scripts}, Config: config},
		{Name: "daeploy.local/builders/bare:1", Shell: true, Config: map[string]any{
			"WorkingDir": "/new/dir", "Labels": map[string]string{"io.openshift.s2i.assemble-runtime-user": "1001:extra"},
		}},
		{Name: "daeploy.local/builders/full-onbuild:1", Layers: [][]containertest.File{scripts}, Config: map[string]any{"OnBuild": []string{"RUN true"}}},
	} {
		if err := s.importImage(image); err != nil {
			return err
		}
	}
	return nil
}
