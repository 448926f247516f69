#!/bin/sh
# After the files are gone. The state outlives the package: only purge may remove it,
# and only if debconf's question daeploy/purge is answered so, at a terminal or
# beforehand.
set -e

state=/var/lib/daeploy bridge=daeploy0

# What is containerd's, in our namespace: builds that still run, then images. What
# is left without a name goes with the last one.
remove_images() {
	command -v ctr >/dev/null || return 0
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
}

remove_network() {
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
}

answer=false
if [ "$1" = purge ] && [ -e /usr/share/debconf/confmodule ]; then
	# This starts the script once more, with debconf on standard output.
	# shellcheck disable=SC1091 # not there on every host
	. /usr/share/debconf/confmodule
	if [ -d "$state" ]; then
		# Without a terminal nobody is asked, and the answer is the one given
		# beforehand, or the default.
		db_input high daeploy/purge || :
		db_go || :
		db_get daeploy/purge || RET=false
		answer=$RET
	fi
	db_purge
	db_stop
fi
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload >&2 || :
fi
[ "$1" = purge ] || exit 0

if [ "$answer" = true ]; then
	remove_images
	remove_network
	rm -rf "$state" /var/cache/daeploy /run/daeploy /etc/daeploy
elif [ -d "$state" ]; then
	echo "daeploy: $state and the images stay; an installation of daeploy goes on with them, or is purged with another answer" >&2
fi
