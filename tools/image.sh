#!/usr/bin/env bash
# Builds the image that sandboxes run, aintandem/sandbox, unless it is there already. Nothing is pulled: its root is made by
# debootstrap from Debian's packages, once, and kept under the cache.
# Usage: tools/image.sh [TAG]    (default: aintandem/sandbox:latest)
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/env.sh
tag="${1:-aintandem/sandbox:latest}"
base="aintandem/sandbox-base:bookworm-1"
packages=ca-certificates,nftables,python3
mirror="${AINTANDEM_DEBIAN_MIRROR:-http://deb.debian.org/debian}"
log="$AINTANDEM_CACHE/image.log"
target="$(rustc -vV | sed -n 's/^host: //p')"

say() { printf 'image: %s\n' "$*" >&2; }

# Runs a step with its output in the log, and shows the end of the log when it fails.
logged() {
    "$@" >>"$log" 2>&1 </dev/null || {
        tail -n 20 "$log" >&2
        say "a step failed: $*; its output is in $log"
        return 1
    }
}

make_base() {
    local root
    if [ "$EUID" -ne 0 ]; then
        # debootstrap needs root; whoever builds images elsewhere has a registry.
        base="debian:bookworm-slim"
        return
    fi
    say "making the root of the image from Debian's packages, which takes a minute or two"
    root="$(mktemp -d)"
    logged debootstrap --variant=minbase --include="$packages" bookworm "$root" "$mirror"
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale,info}/*
    tar -C "$root" --one-file-system -c . | logged_import
    rm -rf "$root"
}

logged_import() { docker import - "$base" >>"$log" 2>&1; }

mkdir -p "$AINTANDEM_CACHE"
: >"$log"
# One file without libraries, so that it runs in any image.
RUSTFLAGS="-C target-feature=+crt-static -C strip=symbols" \
    cargo build --quiet --release --package tandem-agent --target "$target"
agent="$CARGO_TARGET_DIR/$target/release/tandem-agent"
wanted="$(cat docker/sandbox/Dockerfile "$agent" <(echo "$base $packages") | sha256sum | cut -c1-16)"
if [ "$(docker image inspect --format '{{index .Config.Labels "aintandem.made-of"}}' "$tag" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi
docker image inspect "$base" >/dev/null 2>&1 || make_base
context="$(mktemp -d)"
cp docker/sandbox/Dockerfile "$agent" "$context/"
say "building $tag"
logged docker build --quiet --build-arg "BASE=$base" --label "aintandem.made-of=$wanted" --tag "$tag" "$context"
rm -rf "$context"
