#!/bin/sh
# usage: test/isolate.sh COMMAND [ARG...]
#
# Runs COMMAND as root in network and mount namespaces of its own, with
# outgoing connections through slirp4netns. Bridges, firewall rules, sysctls and
# mounts that COMMAND makes are its own and gone when it ends: the host's are
# never touched. The exit status is COMMAND's.
set -eu

if [ "${1-}" = --inside ]; then
	shift
	ready=$1 up=$2
	shift 2
	mount --make-rprivate /
	ip link set lo up
	echo "$$" >"$ready"
	cat "$up" >/dev/null # ends when slirp4netns is ready
	sysctl -q -w net.ipv4.ip_forward=1
	rm -f "$ready" "$up"
	DAEPLOY_ISOLATED=1 exec "$@"
fi

[ "$(id -u)" = 0 ] || { echo "isolate: root is needed" >&2; exit 1; }
for tool in slirp4netns unshare ip sysctl; do
	command -v "$tool" >/dev/null || { echo "isolate: $tool is missing; run: make deps" >&2; exit 1; }
done
dir=$(mktemp -d)
mkfifo "$dir/ready" "$dir/up"
unshare --net --mount "$0" --inside "$dir/ready" "$dir/up" "$@" &
inside=$!
trap 'kill -TERM "$inside" 2>/dev/null || :' INT TERM HUP
read -r pid <"$dir/ready"
slirp4netns --configure --mtu=1500 --disable-host-loopback --ready-fd=3 "$pid" tap0 \
	3>"$dir/up" >/dev/null 2>"$dir/log" &
slirp=$!
status=0
wait "$inside" || status=$?
# A trapped signal ends the first wait early: the command may still be ending.
wait "$inside" 2>/dev/null || :
kill "$slirp" 2>/dev/null || :
rm -rf "$dir"
exit "$status"
