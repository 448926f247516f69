#!/bin/sh
# After the files are there. dpkg says "configure OLD-VERSION", with an empty old
# version at the first installation; rpm says 1 for that and 2 for an upgrade.
set -e

case "$1" in
configure) first=$([ -n "${2-}" ] && echo no || echo yes) ;;
1) first=yes ;;
2) first=no ;;
*) exit 0 ;; # dpkg takes something back: nothing of ours is undone
esac
if [ "$1" = configure ] && [ -e /usr/share/debconf/confmodule ]; then
	# Purge has a question, and then its text is gone: debconf reads it now.
	# shellcheck disable=SC1091 # not there on every host
	. /usr/share/debconf/confmodule
	db_stop
fi

systemd-sysusers daeploy.conf
systemd-tmpfiles --create daeploy.conf
[ -d /run/systemd/system ] || exit 0
systemctl daemon-reload
if [ "$first" = no ]; then
	# Running builds go on, and who connects meanwhile waits at the socket.
	systemctl try-restart daeploy.service
	exit 0
fi
cat <<'END'
daeploy is installed and not started yet. Next:  sudo daeploy init
END
