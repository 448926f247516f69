#!/bin/sh
# usage: [CONTAINERD=v2.4.2] [RUNC=v1.5.3] test/containerd.sh COMMAND [ARG...]
#
# Runs COMMAND with these versions of containerd, 2.x, and runc before the
# distribution's in PATH. They are built from source once, and kept in
# DAEPLOY_TEST_CACHE. Wants root, for what that needs of the distribution.
set -eu

containerd=${CONTAINERD:-v2.4.2} runc=${RUNC:-v1.5.3}
home=$(cd "$(dirname "$0")/.." && pwd)
bin=${DAEPLOY_TEST_CACHE:-$HOME/.cache/daeploy/test}/containerd-$containerd-runc-$runc

build() {
	"$home/packaging/deps.sh" gcc libc6-dev libseccomp-dev pkg-config
	new=$(mktemp -d "$bin.XXXXXX")
	trap 'rm -rf "$new"' EXIT
	export GOBIN="$new"
	source=github.com/containerd/containerd/v2/cmd
	CGO_ENABLED=0 go install -trimpath -tags 'no_cri no_btrfs no_devmapper no_zfs' "$source/containerd@$containerd"
	CGO_ENABLED=0 go install -trimpath "$source/containerd-shim-runc-v2@$containerd"
	CGO_ENABLED=1 go install -trimpath -tags seccomp "github.com/opencontainers/runc@$runc"
	chmod 0755 "$new"
	mv -T "$new" "$bin"
}

if [ ! -d "$bin" ]; then
	mkdir -p "$(dirname "$bin")"
	(
		flock 9
		[ -d "$bin" ] || build
	) 9>"$bin.lock" >&2
fi
PATH="$bin:$PATH" exec "$@"
