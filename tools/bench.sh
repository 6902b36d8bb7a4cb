#!/usr/bin/env bash
# The project's figures: 256-byte messages, fsync before every acknowledgement, each run on a fresh broker. Prints a table and
# leaves JSON in the target directory. It reports and does not judge: the exit code is 0 when every run came to its end.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/env.sh
. tools/scratch_broker.sh
results="$scratch/results"
mkdir -p "$results"

# Seconds for everything but the build, and for one run.
all_seconds=600
run_seconds=90

# run NAME ARGUMENTS...: one `tandem bench` on a fresh broker, bounded in time.
run() {
    local name="$1" left="$((all_seconds - SECONDS))"
    shift
    if ((left <= 0)); then
        printf 'bench: %s s are over before %s; run it on a machine with less to do\n' "$all_seconds" "$name" >&2
        return 1
    fi
    printf '%s: tandem bench %s\n' "$name" "$*" >&2
    start_broker "$scratch/data-$name"
    timeout "$((left < run_seconds ? left : run_seconds))" "$tandem" --server "$broker_url" --json bench "$@" >"$results/$name.json"
    printf '%s' "$*" >"$results/$name.args"
    stop_broker
    [ "$name" = publish ] || rm -rf "$scratch/data-$name"
}

restart() {
    printf 'restart: opening the log that publish left\n' >&2
    start_broker "$scratch/data-publish"
    printf '{"ready_ms": %s}' "$broker_ready_ms" >"$results/restart.json"
    printf 'a directory with 1,000,000 retained messages' >"$results/restart.args"
    stop_broker
}

build_tandem
SECONDS=0
# The workspace is kept for the restart after it.
run publish publish --keep --publishers 4 --window 256 --size 256 --messages 1000000
restart
run unary publish --unary --publishers 1 --window 1 --size 256 --messages 5000
run inbox_paced inbox --inboxes 1000 --rate 1000 --size 256 --messages 20000
run broadcast broadcast --followers 1000 --publishers 1 --window 256 --size 256 --messages 3000
run redrive redrive --dead-letters 100000 --inboxes 100 --rate 1000 --size 256

# What costs something is run by turns with what it is compared to, so that a slow minute of the machine is in both.
for round in 1 2 3; do
    run "plain.$round" publish --publishers 4 --window 256 --size 256 --messages 1000000
    run "ids.$round" publish --ids --publishers 4 --window 256 --size 256 --messages 1000000
    run "waiting_ttl.$round" publish --backlog 1000000 --backlog-ttl 3600 --publishers 4 --window 256 --size 256 --messages 1000000
    run "waiting_delay.$round" publish --backlog 1000000 --backlog-delay 3600 --publishers 4 --window 256 --size 256 --messages 1000000
    run "inbox_saturated.$round" inbox --inboxes 100 --publishers 4 --window 256 --size 256 --messages 500000
    run "keys.$round" inbox --keys 10000 --inboxes 100 --publishers 4 --window 256 --size 256 --messages 500000
done

report="$CARGO_TARGET_DIR/bench/$(date -u +%Y%m%dT%H%M%SZ).json"
mkdir -p "$(dirname "$report")"
python3 tools/bench_table.py "$results" "$report"
