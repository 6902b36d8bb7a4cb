# shellcheck shell=bash disable=SC2034 # what it sets is read by who sources it
# A broker for one script: free loopback ports, and stopped by its own process id whatever happens.
# Source it after env.sh, from the root of the repository.
#
#   build_tandem          compiles the command; $tandem is its path
#   start_broker FOLDER   starts a broker on that data directory and waits until it answers; sets $broker_url, $broker_ready_ms
#   start_dev FOLDER      the same with a control plane; sets $control_plane_url too
#   on_exit FUNCTION      what is to be done before all of it is stopped
#   stop_broker           ends it and waits for it

tandem="$CARGO_TARGET_DIR/release/tandem"
# Not those of whoever runs it.
export TANDEM_CONTEXTS=/nonexistent/contexts.toml
broker_pid=""
broker_url=""
control_plane_url=""
broker_ready_ms=0
# Beside the build and not in /tmp, which may be memory: fsync is part of what is measured.
scratch="$(mkdir -p "$CARGO_TARGET_DIR/scratch" && mktemp -d "$CARGO_TARGET_DIR/scratch/XXXXXX")"

build_tandem() {
    cargo build --quiet --release --workspace --bin tandem
}

now_ms() { printf '%s' "$((${EPOCHREALTIME/[.,]/} / 1000))"; }

start_broker() { start_tandem "$1" --no-control-plane; }

start_dev() {
    start_tandem "$1" --http-port 0
    control_plane_url="$(sed -n 's/.*"rest": *"\([^"]*\)".*/\1/p' "$scratch/greeting")"
}

start_tandem() {
    local folder="$1" began tries greeting="$scratch/greeting" log="$scratch/broker.log"
    : >"$greeting"
    began="$(now_ms)"
    RUST_BACKTRACE=0 "$tandem" --json dev --data-dir "$folder" --port 0 --metrics-port 0 "${@:2}" >"$greeting" 2>"$log" </dev/null &
    broker_pid=$!
    for ((tries = 0; tries < 1500; tries++)); do
        broker_url="$(sed -n 's/.*"server": *"\([^"]*\)".*/\1/p' "$greeting")"
        if [ -n "$broker_url" ] && "$tandem" --server "$broker_url" info >/dev/null 2>&1; then
            broker_ready_ms="$(($(now_ms) - began))"
            return 0
        fi
        kill -0 "$broker_pid" 2>/dev/null || break
        sleep 0.02
    done
    printf 'The broker did not come up. Its last words:\n' >&2
    tail -n 20 "$log" >&2
    return 1
}

stop_broker() {
    local tries
    [ -n "$broker_pid" ] || return 0
    kill -TERM "$broker_pid" 2>/dev/null || true
    for ((tries = 0; tries < 300; tries++)); do
        kill -0 "$broker_pid" 2>/dev/null || break
        sleep 0.1
    done
    kill -KILL "$broker_pid" 2>/dev/null || true
    wait "$broker_pid" 2>/dev/null || true
    broker_pid=""
}

before_leaving=""
on_exit() { before_leaving="$1"; }

leave() {
    $before_leaving
    stop_broker
    rm -rf "$scratch"
}
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
