package test_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/daeploy/daeploy/container/containertest"
)

// doBuilder brings in a builder image: with the stock scripts, or with the
// files of a directory as they are.
func (t *teller) doBuilder(args []string) error {
	image := containertest.Image{Name: args[0], Shell: true, Layers: stockBuilder().Layers}
	if err := json.Unmarshal([]byte(args[1]), &image.Config); err != nil {
		return fmt.Errorf("config of %s: %w", image.Name, err)
	}
	if len(args) > 2 {
		files, err := filesBelow(t.path(args[2]))
		if err != nil {
			return err
		}
		image.Layers = [][]containertest.File{files}
	}
	return t.importImage(image)
}

// filesBelow reads a directory into a layer, parents first.
func filesBelow(dir string) (files []containertest.File, err error) {
	err = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		f := containertest.File{Path: strings.TrimPrefix(name, dir+"/"), Mode: info.Mode().Perm(), Dir: d.IsDir()}
		var content []byte
		switch info.Mode().Type() {
		case fs.ModeSymlink:
			f.Link, err = os.Readlink(name)
		case 0:
			content, err = os.ReadFile(name)
		}
		f.Content = string(content)
		files = append(files, f)
		return err
	})
	if err == nil && len(files) == 0 {
		err = errors.New("no files in " + dir)
	}
	return files, err
}

// doWeb serves a directory. What was asked for is in the file web.log.
func (t *teller) doWeb(args []string) error {
	log, err := os.Create(t.path("web.log"))
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/", http.FileServer(http.Dir(t.path(args[0]))))
	mux.HandleFunc("/moved/{n}/{path...}", func(w http.ResponseWriter, r *http.Request) {
		to := "/" + r.PathValue("path")
		if n, _ := strconv.Atoi(r.PathValue("n")); n > 1 {
			to = fmt.Sprintf("/moved/%d%s", n-1, to)
		}
		http.Redirect(w, r, to, http.StatusFound)
	})
	mux.HandleFunc("/out/{path...}", func(w http.ResponseWriter, r *http.Request) {
		_, port, _ := net.SplitHostPort(r.Host)
		http.Redirect(w, r, "http://127.0.0.2:"+port+"/"+r.PathValue("path"), http.StatusFound)
	})
	mux.HandleFunc("/broken/", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(log, "%s %s\n", r.Host, r.URL.Path)
		mux.ServeHTTP(w, r)
	}))
	t.ts.Defer(func() {
		server.Close()
		log.Close()
	})
	t.ts.Setenv("WEB", server.URL)
	t.ts.Setenv("WEBPORT", server.URL[strings.LastIndexByte(server.URL, ':')+1:])
	return nil
}
