#!/usr/bin/env bash
# Feeds the broker's decoders with bytes that libFuzzer invents, guided by coverage, for a bounded time each.
# Usage: tools/fuzz.sh [SECONDS for each target, 1 to 3600, default 60]
#
# What it learns stays beside the build and is where the next run begins; fuzz/seeds is where the first one does. An input that
# crashed stays there too, so every run fails until its cause is repaired.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/env.sh
seconds="${1:-60}"
if ! [[ "$seconds" =~ ^[1-9][0-9]{0,3}$ ]] || [ "$seconds" -gt 3600 ]; then
    printf 'fuzz: "%s" is no number of seconds for each target; give 1 to 3600\n' "$seconds" >&2
    exit 2
fi
# Instrumented code must not mix with the rest.
fuzz_target="$(dirname "$CARGO_TARGET_DIR")/fuzz-target"
host="$(rustc --print host-tuple)"
targets=(message command records)

# What `cargo fuzz --sanitizer none` would pass, on the stable toolchain: memory is safe without a sanitizer, for our code has
# no `unsafe`. Cargo gives RUSTFLAGS to build scripts too unless --target is named, and those have no fuzzer to link with.
build() {
    local coverage="-Cpasses=sancov-module" argument
    for argument in level=4 inline-8bit-counters pc-table trace-compares; do
        coverage+=" -Cllvm-args=-sanitizer-coverage-$argument"
    done
    # The versions of the product; cargo adds the fuzzer's own.
    [ fuzz/Cargo.lock -nt Cargo.lock ] || cp Cargo.lock fuzz/Cargo.lock
    printf 'fuzz: building (the first time takes minutes) ...\n'
    RUSTFLAGS="$coverage" cargo build --quiet --release --bins --manifest-path fuzz/Cargo.toml \
        --target "$host" --target-dir "$fuzz_target"
}

# The last figure of that name in a log of libFuzzer.
figure() { grep -oE "$2: *[0-9]+" "$1" | tail -n 1 | grep -oE '[0-9]+$' || printf '?'; }

fuzz() {
    local target="$1" corpus="$fuzz_target/corpus/$1" artifacts="$fuzz_target/artifacts/$1" log="$fuzz_target/$1.log"
    mkdir -p "$corpus" "$artifacts"
    # The outer limit is for a fuzzer that does not keep its own.
    if timeout --kill-after 5 "$((seconds + 60))" "$fuzz_target/$host/release/$target" \
        -max_total_time="$seconds" -max_len=4096 -timeout=5 -rss_limit_mb=1024 -print_final_stats=1 \
        -artifact_prefix="$artifacts/" "$corpus" "fuzz/seeds/$target" "$artifacts" >"$log" 2>&1 </dev/null; then
        printf 'fuzz: %-8s %10s inputs in %s s, %s edges covered, no crash\n' "$target" \
            "$(figure "$log" number_of_executed_units)" "$seconds" "$(figure "$log" cov)"
        return
    fi
    printf 'fuzz: %s FAILED. What it met, and its last words, from %s:\n' "$target" "$log" >&2
    grep -m 1 -A 1 'panicked at' "$log" >&2 || true
    tail -n 12 "$log" >&2
    printf 'fuzz: to see it again: %s %s/*\n' "$fuzz_target/$host/release/$target" "$artifacts" >&2
    return 1
}

build
failed=0
for target in "${targets[@]}"; do
    fuzz "$target" || failed=1
done
exit "$failed"
