#!/bin/sh
# After the files are gone. The state outlives the package. Only purge may remove
# it, and asks first: on a terminal, or by DAEPLOY_PURGE=yes where there is none.
set -e

state=/var/lib/daeploy
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || :
fi
[ "$1" = purge ] || exit 0

answer=${DAEPLOY_PURGE-}
if [ -z "$answer" ] && [ -d "$state" ] && [ "${DEBIAN_FRONTEND-}" != noninteractive ] && { : </dev/tty; } 2>/dev/null; then
	printf 'Delete %s, with all repositories, logs, secrets and images of daeploy? [y/N] ' "$state" >/dev/tty
	read -r answer </dev/tty || answer=
fi
case "$answer" in
y | Y | yes | Yes | YES) ;;
*)
	[ ! -d "$state" ] || echo "daeploy: $state stays; to delete it as well: DAEPLOY_PURGE=yes apt-get purge daeploy, or rm -r" >&2
	exit 0
	;;
esac

# What is containerd's, in our namespace: builds that still run, then images. What
# is left without a name goes with the last one.
if command -v ctr >/dev/null; then
	for kind in tasks containers leases images; do
		case "$kind" in
		tasks) flags=--force ;;
		images | leases) flags=--sync ;;
		*) flags= ;;
		esac
		ctr -n daeploy "$kind" ls -q 2>/dev/null | while read -r name; do
			# shellcheck disable=SC2086 # a flag or none
			ctr -n daeploy "$kind" rm $flags "$name" >/dev/null 2>&1 || :
		done
	done
	ctr namespaces rm daeploy >/dev/null 2>&1 || :
fi
bridge=daeploy0
for tables in iptables ip6tables; do
	command -v "$tables" >/dev/null || continue
	for rule in "filter FORWARD forward" "filter INPUT input" "nat POSTROUTING nat"; do
		# shellcheck disable=SC2086 # three words
		set -- $rule
		"$tables" -w -t "$1" -D "$2" -j "$bridge-$3" 2>/dev/null || :
		"$tables" -w -t "$1" -F "$bridge-$3" 2>/dev/null || :
		"$tables" -w -t "$1" -X "$bridge-$3" 2>/dev/null || :
	done
done
ip link delete "$bridge" 2>/dev/null || :
rm -rf "$state" /var/cache/daeploy /run/daeploy /etc/daeploy
