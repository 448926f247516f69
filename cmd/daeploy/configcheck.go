package main

import (
	"encoding/json"
	"fmt"

	"github.com/daeploy/daeploy"
)

// checkConfig is `config check [FILE]`: it says of a file what serve would,
// with the same exit status, and does nothing.
func checkConfig(words []string, std streams) error {
	file, asJSON := defaultConfigFile, false
	var files []string
	for _, word := range words {
		switch {
		case word == "--json":
			asJSON = true
		case len(word) > 1 && word[0] == '-':
			return &daeploy.Error{Kind: daeploy.Usage, Code: "unknown_flag", Message: fmt.Sprintf("unknown flag %q", word), Hint: "daeploy help config check"}
		default:
			files = append(files, word)
		}
	}
	if len(files) > 1 {
		return &daeploy.Error{Kind: daeploy.Usage, Code: "usage", Message: "config check wants one file at most", Hint: "daeploy help config check"}
	}
	if len(files) == 1 {
		file = files[0]
	}
	c, err := readConfig(file)
	if err != nil {
		return err
	}
	if asJSON {
		return json.NewEncoder(std.out).Encode(map[string]string{"file": c.file})
	}
	if c.file == "" {
		fmt.Fprintf(std.out, "there is no %s: all is as by default\n", file)
		return nil
	}
	fmt.Fprintf(std.out, "%s is fine\n", file)
	return nil
}
