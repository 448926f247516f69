// Program script is both scripts of a builder image without a shell.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	if err := run(filepath.Base(os.Args[0])); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(name string) error {
	fmt.Println("static", name)
	if name != "assemble" {
		return nil
	}
	if err := os.Rename("/tmp/src", "/app/src"); err != nil {
		return err
	}
	return os.WriteFile("/app/assemble-invoked", nil, 0o644)
}
