#!/usr/bin/env bash
# Every check that reads and changes nothing. Runs all of them, then names those that failed.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/env.sh

failed=()
check() {
    local name="$1"
    shift
    printf '== %s\n' "$name"
    "$@" || failed+=("$name")
}
skip() { printf '== %s: SKIPPED, %s\n' "$1" "$2"; }

# The contract must not break what an earlier one promised: the newest tag's, else main's, else the one before the last change.
earlier_contract() {
    local candidate
    for candidate in "$(git describe --tags --abbrev=0 2>/dev/null)" origin/main \
        "$(git log -1 --format=%H^ -- ':(glob)proto/**/*.proto' 2>/dev/null)"; do
        [ -n "$candidate" ] || continue
        git cat-file -e "$candidate:proto/buf.yaml" 2>/dev/null || continue
        # Main itself, as in a fresh clone, says nothing.
        [ "$(git rev-parse "$candidate^{commit}")" != "$(git rev-parse HEAD)" ] || [ "$candidate" != origin/main ] || continue
        printf '%s\n' "$candidate"
        return
    done
}

contract() {
    local buf=node_modules/.bin/buf earlier
    check "buf lint" "$buf" lint proto
    earlier="$(earlier_contract)"
    if [ -n "$earlier" ]; then
        check "buf breaking, against $earlier" "$buf" breaking proto --against ".git#ref=$earlier,subdir=proto"
    else
        skip "buf breaking" "git knows no earlier contract"
    fi
}

dependencies() {
    check "cargo deny: bans, licences, sources" cargo deny --locked check bans licenses sources
    # The advisory database is a git repository elsewhere: without it there is no verdict, which is not a pass.
    if GIT_TERMINAL_PROMPT=0 timeout 60 cargo deny --locked fetch db >/dev/null 2>&1; then
        check "cargo deny: advisories" cargo deny --locked check advisories
    else
        skip "cargo deny: advisories" "the advisory database cannot be fetched from here"
    fi
}

check "rustfmt" cargo fmt --all --check
# A workspace of its own, so --all does not reach it.
check "rustfmt, fuzz" cargo fmt --manifest-path fuzz/Cargo.toml --check
check "shellcheck" shellcheck -x .ci/run tools/*.sh tools/tandem
contract
dependencies
check "clippy" cargo clippy --locked --release --workspace --all-targets -- -D warnings
check "architecture" cargo nextest run --locked --release --workspace --test architecture

if [ "${#failed[@]}" -gt 0 ]; then
    printf 'verify: %s FAILED\n' "${#failed[@]}" >&2
    printf '  %s\n' "${failed[@]}" >&2
    exit 1
fi
printf 'verify: all checks passed\n'
