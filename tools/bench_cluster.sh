#!/usr/bin/env bash
# The figures of a cluster of three processes on this machine: prints each, and fails where one is more than it may be.
# Arguments narrow them, as those of nextest do: tools/bench_cluster.sh -E 'test(killed_leader)'.
#
# TANDEM_FIGURE_BYTES   how much an empty node catches up; default 2 GiB
# TANDEM_FIGURE_RUNS    how often a leader is killed (30) or moved (10)
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/env.sh
exec cargo nextest run --release --workspace --profile figures --run-ignored only "$@"
