#!/bin/sh
# After the files are there. dpkg says "configure OLD-VERSION", with an empty old
# version at the first installation, and an old one also after a removal that was no
# purge; rpm says 1 for the first and 2 for an upgrade.
set -e

case "$1" in
configure) first=$([ -n "${2-}" ] && echo no || echo yes) ;;
1) first=yes ;;
2) first=no ;;
abort-remove) first=no ;; # but prerm has stopped and disabled the units
*) exit 0 ;; # dpkg takes something back that has changed nothing of ours
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
	systemctl try-restart daeploy.service ||
		echo "daeploy: the service does not start; journalctl -u daeploy says why" >&2
	if ! systemctl --quiet is-enabled daeploy.service 2>/dev/null; then
		cat <<'END'
daeploy is installed and its service is not enabled. Next:  sudo daeploy init
or, with the state that is there:  systemctl enable --now daeploy.socket daeploy.service
END
	fi
	exit 0
fi
cat <<'END'
daeploy is installed and not started yet. Next:  sudo daeploy init
END
