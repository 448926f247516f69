#!/bin/sh
# usage: test/demo.sh            (by way of `make demo`)
#
# One push from start to HTTP answer: a private containerd, daeploy, the Python
# builder, a small app, all in one temporary directory and in a network of
# their own. KEEP=1 leaves it running until Enter or Ctrl-C.
set -eu

repo=$(cd "$(dirname "$0")/.." && pwd)
if [ "${DAEPLOY_ISOLATED-}" != 1 ]; then
	exec "$repo/test/isolate.sh" "$0" "$@"
fi

cache=${DAEPLOY_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/daeploy/test}
daeploy=$repo/bin/daeploy
dir=$(mktemp -d /tmp/daeploy-demo.XXXXXX)
say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
show() { printf '\033[1m$ %s\033[0m\n' "$*"; }

pids=
finish() {
	status=$?
	trap - EXIT INT TERM
	for pid in $pids; do
		kill "$pid" 2>/dev/null || :
		wait "$pid" 2>/dev/null || :
	done
	[ "$status" = 0 ] || tail -n 20 "$dir"/*.log >&2 || :
	umount -R "$dir" 2>/dev/null || :
	rm -rf "$dir"
	exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

# await FILE PATTERN: until the log says so, for at most 30 s.
await() {
	n=0
	until grep -q "$2" "$1" 2>/dev/null; do
		n=$((n + 1))
		[ "$n" -lt 300 ] || { echo "demo: $1 does not say: $2" >&2; exit 1; }
		sleep 0.1
	done
}

say "a private containerd, and daeploy beside it, in $dir"
mkdir "$dir/containerd" "$dir/state"
cat >"$dir/containerd.toml" <<END
version = 2
root = "$dir/containerd/root"
state = "$dir/containerd/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "$dir/containerd.sock"
END
containerd -c "$dir/containerd.toml" >"$dir/containerd.log" 2>&1 &
pids="$! $pids"
await "$dir/containerd.log" "containerd successfully booted"

cat >"$dir/daeploy.toml" <<END
state_dir = "$dir/state"
socket = "$dir/daeploy.sock"
ssh_addr = "127.0.0.1:2222"
public_address = "127.0.0.1:2222"
containerd = "$dir/containerd.sock"
default_builder = "daeploy.local/builders/python:3.11"
END
if [ -r /etc/ssl/certs/ca-certificates.crt ]; then
	echo 'ca_bundle = "/etc/ssl/certs/ca-certificates.crt"' >>"$dir/daeploy.toml"
fi
"$daeploy" serve --config "$dir/daeploy.toml" >"$dir/daeploy.log" 2>&1 &
pids="$! $pids"
await "$dir/daeploy.log" "msg=ready"
export DAEPLOY_SOCKET="$dir/daeploy.sock"
PATH=$repo/bin:$PATH

say "the Python builder, from Debian's packages (about a minute the first time)"
show daeploy builders build builders/python
daeploy builders build --cache "$cache/builders" "$repo/builders/python" 2>"$dir/builder.log"

say "a key that may push, and an app"
ssh-keygen -q -t ed25519 -N '' -C demo -f "$dir/key"
show daeploy keys add demo key.pub --admin
daeploy keys add demo "$dir/key.pub" --admin
cp -r "$repo/examples/python-hello" "$dir/hello"
cd "$dir/hello"
export GIT_SSH_COMMAND="ssh -i $dir/key -o IdentitiesOnly=yes -o StrictHostKeyChecking=accept-new -o UserKnownHostsFile=$dir/known_hosts"
git init -q -b main
git config user.name Demo
git config user.email demo@example.org
git add .
git commit -q -m 'Say hello'
show git remote add daeploy ssh://daeploy@127.0.0.1:2222/hello
git remote add daeploy ssh://daeploy@127.0.0.1:2222/hello

say "the push"
show git push daeploy main
git push daeploy main

say "the image runs, and answers"
show daeploy run hello
daeploy run hello >"$dir/run.log" 2>&1 &
run=$!
pids="$run $pids"
await "$dir/run.log" 'running hello/1 at '
address=$(sed -n 's/^running [^ ]* at \([0-9.]*\).*/\1/p' "$dir/run.log")
show curl "http://$address:8080/"
curl -sS --noproxy '*' --retry 30 --retry-delay 1 --retry-connrefused --max-time 60 "http://$address:8080/"
echo

say "three commands to try next"
cat <<END
  daeploy builds hello            what was built, when, from which commit
  daeploy logs hello/1            the log once more
  sed -i s/Hello/Hi/ app.py && git commit -qam Hi && git push daeploy main
END
if [ -n "${KEEP-}" ]; then
	cat >"$dir/enter" <<END
#!/bin/sh
# A shell in the demo's network, with everything set up.
cd "$dir/hello"
PATH="$PATH" DAEPLOY_SOCKET="$DAEPLOY_SOCKET" GIT_SSH_COMMAND="$GIT_SSH_COMMAND" exec nsenter -t $$ -n -m --wd="$dir/hello" "\${SHELL:-/bin/sh}"
END
	chmod +x "$dir/enter"
	echo
	echo "They work in a shell of the demo's own:  sudo $dir/enter"
	echo "It runs until you press Enter or Ctrl-C here."
	read -r _ || while :; do sleep 3600 & wait "$!"; done
else
	echo
	echo "This demo ends now; make demo KEEP=1 leaves it running."
fi
