#!/bin/sh
# usage: packaging/dist.sh VERSION NFPM CYCLONEDX-GOMOD
#
# Makes dist/: the program, a .deb and an .rpm for each architecture, an SBOM,
# and checksums of all. Run from the top of the checkout, by `make dist`. The same
# commit gives the same bytes: times are the commit's. ARCHS names the
# architectures, "amd64 arm64" by default, DIST another directory.
set -eu

version=$1 nfpm=$2 cyclonedx=$3
dist=${DIST:-dist}
rm -rf "$dist"
mkdir -p "$dist/stage/completion"
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || date -r go.mod +%s)
export SOURCE_DATE_EPOCH VERSION="$version"
# nfpm fills no variables into the paths of files.
sed "s|dist/stage|$dist/stage|" packaging/nfpm.yaml >"$dist/stage/nfpm.yaml"

# nfpm takes the times of a tree's files as they are.
cp -R builders "$dist/stage/builders"
find "$dist/stage/builders" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

build() { CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$version" -o "$1" ./cmd/daeploy; }

# The program of this machine tells the completions.
build "$dist/stage/here"
"$dist/stage/here" completion bash >"$dist/stage/completion/daeploy.bash"
"$dist/stage/here" completion zsh >"$dist/stage/completion/_daeploy"
"$dist/stage/here" completion fish >"$dist/stage/completion/daeploy.fish"

for ARCH in ${ARCHS:-amd64 arm64}; do
	export ARCH
	GOARCH=$ARCH build "$dist/stage/daeploy"
	"$cyclonedx" bin -json -noserial -version "v$version" -output "$dist/daeploy_${version}_linux_$ARCH.cdx.json" "$dist/stage/daeploy"
	for packager in deb rpm; do
		"$nfpm" package --config "$dist/stage/nfpm.yaml" --packager "$packager" --target "$dist/"
	done
	cp "$dist/stage/daeploy" "$dist/daeploy_${version}_linux_$ARCH"
done
rm -r "$dist/stage"
(cd "$dist" && sha256sum -- * >SHA256SUMS)
