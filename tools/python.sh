#!/usr/bin/env bash
# The Python SDK: tools of pinned version in a virtual environment of its own, and what is done with them.
# Usage: tools/python.sh setup|verify|test|reference [arguments of pytest]
#
#   setup       makes the environment where it is not there or not the one that requirements-dev.txt pins
#   verify      formatting, lints, types; only reads
#   reference   the pages of the API, from the docstrings
#   test        pytest, against the built `tandem` (TANDEM_BIN and TANDEM_BROKER_BIN name others)
set -euo pipefail
cd "$(dirname "$0")/.."

# Not tools/env.sh: it marks whose clone cargo's directory serves, which concerns only who compiles.
AINTANDEM_CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/aintandem"
package="$PWD/clients/python"
venv="$AINTANDEM_CACHE/venv"
bin="$venv/bin"

say() { printf 'python: %s\n' "$*" >&2; }
stop() {
    say "$@"
    exit 1
}

# What the environment was made from: pins, interpreter, the clone that it points to, and all that is generated code's source.
fingerprint() {
    {
        python3 -c 'import sys; print(sys.version, sys.executable)'
        printf '%s\n' "$package"
        cat "$package/requirements-dev.txt" "$package/pyproject.toml" "$package/hatch_build.py" "$package"/src/aintandem/_async/*.py
        find proto/aintandem -name '*.proto' -print0 | sort -z | xargs -0 cat
    } | sha256sum | cut -d' ' -f1
}

setup() {
    local wanted log="$AINTANDEM_CACHE/python.log"
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || stop "Python 3.10 or newer is needed; this is $(python3 --version)"
    wanted="$(fingerprint)"
    if [ "$(cat "$venv/fingerprint" 2>/dev/null)" = "$wanted" ] && [ -d "$package/src/aintandem_agent_sdk/_proto" ]; then return 0; fi
    say "installing pinned tools into $venv"
    mkdir -p "$AINTANDEM_CACHE"
    {
        rm -f "$venv/fingerprint"
        python3 -m venv --upgrade-deps "$venv" || python3 -m venv --clear "$venv"
        "$bin/python" -m pip install --quiet --disable-pip-version-check --only-binary=:all: --require-hashes \
            -r "$package/requirements-dev.txt"
        # The build's own requirements are among the pins.
        "$bin/python" -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable "$package"
    } >"$log" 2>&1 </dev/null || {
        tail -n 20 "$log" >&2
        stop "the environment could not be made; see $log. On Debian the package python3-venv is needed"
    }
    printf '%s\n' "$wanted" >"$venv/fingerprint"
}

verify() {
    local failed=0
    cd "$package"
    "$bin/ruff" format --quiet --check . || failed=1
    "$bin/ruff" check --quiet . || failed=1
    "$bin/mypy" --strict --no-error-summary || failed=1
    [ "$failed" -eq 0 ] || stop "verify FAILED"
}

run_tests() {
    if [ -z "${TANDEM_BIN:-}" ]; then
        . tools/env.sh
        cargo build --quiet --release --workspace --bin tandem --bin tandem-broker --bin tandem-control-plane
    fi
    cd "$package"
    "$bin/python" -m pytest "$@"
}

reference() {
    local folder="$AINTANDEM_CACHE/python-reference"
    "$bin/python" -m pdoc --output-directory "$folder" aintandem aintandem_agent_sdk '!aintandem_agent_sdk._proto'
    printf '%s\n' "$folder/index.html"
}

case "${1:-}" in
setup) setup ;;
reference) setup && reference ;;
verify) setup && verify ;;
test)
    shift
    setup && run_tests "$@"
    ;;
*) stop "usage: tools/python.sh setup|verify|test|reference [arguments of pytest]" ;;
esac
