#!/usr/bin/env bash
# The project's figures: 256-byte messages, fsync before every acknowledgement, each run on a fresh broker. Prints a table and
# leaves JSON in the target directory. It reports and does not judge: the exit code is 0 when every run came to its end.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/env.sh
. tools/scratch_broker.sh
results="$scratch/results"
mkdir -p "$results"

# run NAME ARGUMENTS...: one `tandem bench` on a fresh broker, bounded in time.
run() {
    local name="$1"
    shift
    printf '%s: tandem bench %s\n' "$name" "$*" >&2
    start_broker "$scratch/data-$name"
    timeout 300 "$tandem" --server "$broker_url" --json bench "$@" >"$results/$name.json"
    printf '%s' "$*" >"$results/$name.args"
    stop_broker
}

restart() {
    printf 'restart: opening the log that publish left\n' >&2
    start_broker "$scratch/data-publish"
    printf '{"ready_ms": %s}' "$broker_ready_ms" >"$results/restart.json"
    printf 'a directory with 1,000,000 retained messages' >"$results/restart.args"
    stop_broker
}

build_tandem
# The workspace is kept for the restart after it.
run publish publish --keep --publishers 4 --window 256 --size 256 --messages 1000000
restart
run unary publish --unary --publishers 1 --window 1 --size 256 --messages 5000
run inbox_saturated inbox --inboxes 100 --publishers 4 --window 256 --size 256 --messages 500000
run inbox_paced inbox --inboxes 1000 --rate 1000 --size 256 --messages 20000

report="$CARGO_TARGET_DIR/bench/$(date -u +%Y%m%dT%H%M%SZ).json"
mkdir -p "$(dirname "$report")"
python3 tools/bench_table.py "$results" "$report"
