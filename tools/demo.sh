#!/usr/bin/env bash
# Replays real conversations between agents through a broker of its own. Usage: tools/demo.sh [FILE]
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/env.sh
. tools/scratch_broker.sh
file="${1:-docs/demo/conversations.jsonl}"

printf 'Building tandem (the first time takes minutes) ...\n'
build_tandem
start_broker "$scratch/data"
printf 'A broker listens on %s, with its data in a directory that goes away with it.\n' "$broker_url"
printf 'Replaying %s: every agent gets a sandbox with a durable inbox.\n\n' "$file"
timeout 600 "$tandem" --server "$broker_url" replay "$file"
printf '\nThe same on a broker that stays: make run, and in a second terminal: %s replay %s\n' "$tandem" "$file"
