#!/bin/sh
# After the files are gone. The state outlives the package: only purge may remove it,
# and only if debconf's question daeploy/purge is answered so, at a terminal or
# beforehand.
set -e

state=/var/lib/daeploy bridge=daeploy0

# What is containerd's, in our namespace: builds that still run, then images. What
# is left without a name goes with the last one. A containerd that hangs holds up
# nobody's purge.
remove_images() {
	command -v ctr >/dev/null || return 0
	for kind in tasks containers leases images; do
		case "$kind" in
		tasks) flags=--force ;;
		images | leases) flags=--sync ;;
		*) flags= ;;
		esac
		names=$(timeout 30 ctr -n daeploy "$kind" ls -q 2>/dev/null) || return 1
		for name in $names; do
			# shellcheck disable=SC2086 # a flag or none
			timeout 30 ctr -n daeploy "$kind" rm $flags "$name" >/dev/null 2>&1 || [ $? != 124 ] || return 1
		done
	done
	timeout 30 ctr namespaces rm daeploy >/dev/null 2>&1 || [ $? != 124 ]
}

# A directory with what is in it, also where that is a file system of its own or a
# link: then at least what is in it. What stays is no failure of dpkg's.
remove_directory() {
	if [ -d "$1" ]; then
		find "$1/" -mindepth 1 -delete || :
	fi
	if [ -e "$1" ] || [ -L "$1" ]; then
		rm -d "$1" || echo "daeploy: $1 stays, for the reason above; what is left of it is to be removed by hand" >&2
	fi
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

# debconf would read the answer from a pipe that is there for something else, or wait
# for one forever.
if [ -z "${DEBIAN_HAS_FRONTEND-}${DEBIAN_FRONTEND-}" ] && [ ! -t 0 ]; then
	export DEBIAN_FRONTEND=noninteractive
fi
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
	remove_images ||
		echo "daeploy: containerd does not answer, and keeps what it has in its namespace daeploy" >&2
	remove_network
	for directory in "$state" /var/cache/daeploy /run/daeploy /etc/daeploy; do
		remove_directory "$directory"
	done
elif [ -d "$state" ]; then
	echo "daeploy: $state and the images stay; an installation of daeploy goes on with them, or is purged with another answer" >&2
fi
