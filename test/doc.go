// Package test is the black box: the built program with real git, ssh,
// containerd and runc. Stories stand in script/, one per file.
package test
