#!/usr/bin/env bash
# The TypeScript client.
# Usage: tools/typescript.sh verify    format, lint and types; changes nothing but what git does not know
#        tools/typescript.sh test      all its tests, against real brokers (TANDEM_BIN and what lies beside it, or built here)
#        tools/typescript.sh pack      builds the package and prints the path of its archive
#        tools/typescript.sh reference makes the pages of the API from the comments and prints the path of the first one
#        tools/typescript.sh bench     its figures
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/env.sh
folder="$PWD/clients/typescript"
typedoc="$AINTANDEM_CACHE/typedoc"

# npm runs with the Node of the machine, whose it is; all else with a newer one, where setup.sh had to install that.
node_modules() {
    [ "$folder/node_modules/.package-lock.json" -nt "$folder/package-lock.json" ] && return 0
    npm ci --prefix "$folder" --ignore-scripts --no-audit --no-fund --silent
    touch "$folder/node_modules/.package-lock.json"
}

use_node() {
    local pinned
    pinned="$AINTANDEM_TOOLS/$(basename tools/pins/node-*)/node_modules/.bin"
    node -e 'process.exit(parseInt(process.versions.node) >= 20 ? 0 : 1)' && return 0
    [ -x "$pinned/node" ] || {
        printf 'typescript: Node 20 or later is missing. Type: make setup\n' >&2
        exit 1
    }
    PATH="$pinned:$PATH"
}

in_folder() { (cd "$folder" && "$@"); }
tool() { in_folder "node_modules/.bin/$1" "${@:2}"; }

generate() {
    in_folder rm -rf src/gen
    tool buf generate
}

build() {
    in_folder rm -rf dist build
    tool tsc -p tsconfig.build.json
    tool tsc -p tsconfig.json
}

# The programs that the tests run against.
broker() {
    [ -z "${TANDEM_BIN:-}" ] || return 0
    cargo build --quiet --release --workspace --bin tandem --bin tandem-broker --bin tandem-control-plane
    export TANDEM_BIN="$CARGO_TARGET_DIR/release/tandem" TANDEM_BROKER_BIN="$CARGO_TARGET_DIR/release/tandem-broker"
}

# One file at a time: each has brokers of its own, and some look at how long things take.
tests() {
    local folders=(build/test build/test/unit build/test/bad_use) part files=()
    # Scenarios that all clients share.
    if compgen -G 'clients/conformance/*.yaml' >/dev/null; then folders+=(build/test/conformance); fi
    cd "$folder"
    for part in "${folders[@]}"; do files+=("$part"/*.test.js); done
    node --test --test-concurrency=1 --test-reporter=spec "${files[@]}"
}

# It reads declarations with TypeScript 5 and cannot use the 7 that builds them, so it has a project and a folder of its own.
install_typedoc() {
    local pins="$PWD/tools/typedoc"
    cmp --quiet "$pins/package-lock.json" "$typedoc/installed" && return 0
    printf 'typescript: installing typedoc into %s\n' "$typedoc" >&2
    mkdir -p "$typedoc"
    rm -f "$typedoc/installed"
    cp "$pins/package.json" "$pins/package-lock.json" "$typedoc"
    npm ci --prefix "$typedoc" --ignore-scripts --no-audit --no-fund --silent
    cp "$pins/package-lock.json" "$typedoc/installed"
}

# Fails where something that is public has no comment, names what is not public, or has a link that leads nowhere.
reference() {
    local pages="$AINTANDEM_CACHE/typescript-reference"
    "$typedoc/node_modules/.bin/typedoc" --options tools/typedoc/typedoc.json --out "$pages" >&2
    printf '%s\n' "$pages/index.html"
}

case "${1:-}" in
verify)
    node_modules
    use_node
    generate
    tool biome ci --colors=off --error-on-warnings .
    tool tsc -p tsconfig.build.json
    tool tsc -p tsconfig.json --noEmit
    ;;
test)
    node_modules
    use_node
    broker
    generate
    build
    tests
    ;;
pack)
    node_modules
    (
        use_node
        generate
        build
    ) >&2
    archive="$(in_folder npm pack --ignore-scripts --silent | tail -n 1)"
    printf '%s\n' "$folder/$archive"
    ;;
reference)
    node_modules
    install_typedoc
    use_node
    generate
    build
    reference
    ;;
bench)
    node_modules
    use_node
    broker
    generate
    build
    in_folder node build/bench/figures.js "${@:2}"
    ;;
*)
    sed -n '2,7s/^# //p' "$0" >&2
    exit 2
    ;;
esac
