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

# The Python SDK with what it needs, for the image's own Python and not for this machine's.
add_sdk() {
    tools/python.sh setup
    local python="$AINTANDEM_CACHE/venv/bin/python"
    sed -n 's/^\([a-z0-9_.-]*==[^ ;]*\).*/\1/p' clients/python/requirements-dev.txt >"$context/pins"
    logged "$python" -m pip wheel --no-deps --no-build-isolation --wheel-dir "$context/wheels" ./clients/python
    logged "$python" -m pip install --no-compile --target "$context/site" --constraint "$context/pins" \
        --python-version 3.11 --implementation cp --platform manylinux2014_x86_64 --platform manylinux_2_17_x86_64 --only-binary=:all: \
        "$context"/wheels/*.whl
}

logged_import() { docker import - "$base" >>"$log" 2>&1; }

mkdir -p "$AINTANDEM_CACHE"
: >"$log"
# One file without libraries, so that it runs in any image.
RUSTFLAGS="-C target-feature=+crt-static -C strip=symbols" \
    cargo build --quiet --release --package tandem-agent --target "$target"
agent="$CARGO_TARGET_DIR/$target/release/tandem-agent"
wanted="$(cat docker/sandbox/Dockerfile <(find clients/python/src clients/python/pyproject.toml proto -name _proto -prune -o -type f -print0 | sort -z | xargs -0 cat) "$agent" <(echo "$base $packages") | sha256sum | cut -c1-16)"
if [ "$(docker image inspect --format '{{index .Config.Labels "aintandem.made-of"}}' "$tag" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi
docker image inspect "$base" >/dev/null 2>&1 || make_base
context="$(mktemp -d)"
cp docker/sandbox/Dockerfile "$agent" "$context/"
add_sdk
say "building $tag"
logged docker build --quiet --build-arg "BASE=$base" --label "aintandem.made-of=$wanted" --tag "$tag" "$context"
rm -rf "$context"
