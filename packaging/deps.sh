#!/bin/sh
# usage: packaging/deps.sh [PACKAGE...]
#
# Installs what daeploy's demo and tests need, or the packages named, from the
# distribution. Says nothing and changes nothing if all are there already.
set -eu

packages=${*:-"containerd runc tini containernetworking-plugins iptables mmdebstrap slirp4netns
	iproute2 procps e2fsprogs xfsprogs openssh-client git ca-certificates curl shellcheck python3-venv python3-setuptools busybox-static docker-registry nodejs systemd-container"}

missing=
for package in $packages; do
	if ! dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed'; then
		missing="$missing $package"
	fi
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
	echo "deps: root is needed to install:$missing" >&2
	exit 1
fi
echo "deps: installing:$missing" >&2
export DEBIAN_FRONTEND=noninteractive
# No service of these packages is to start: daeploy's tests start their own.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod +x "$policy"
	trap 'rm -f "$policy"' EXIT
fi
# shellcheck disable=SC2086 # a list of words
apt-get install -y -q --no-install-recommends $missing >/dev/null 2>&1 || {
	apt-get update -q >/dev/null
	apt-get install -y -q --no-install-recommends $missing >/dev/null
}
