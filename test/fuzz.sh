#!/bin/sh
# usage: test/fuzz.sh TIME
#
# Runs every fuzz target of the module for TIME, one after the other.
set -eu

cd "$(dirname "$0")/.."
go list ./... | while read -r package; do
	for target in $(go test -list '^Fuzz' "$package" | grep '^Fuzz' || :); do
		echo "== $package $target"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$1" "$package"
	done
done
