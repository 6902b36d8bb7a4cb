#!/usr/bin/env bash
# The shop's team of four in four containers: orders go through all of them, one is killed on the way, nothing is lost.
# Usage: tools/demo_team.sh [ORDERS]    (default: 40)
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/env.sh
. tools/scratch_broker.sh
orders="${1:-40}"

tools/docker.sh
tools/image.sh
printf 'Building tandem (the first time takes minutes) ...\n'
build_tandem
printf 'Starting a broker and a control plane, with their data in a directory that goes away with them.\n'
start_dev "$scratch/data"
export TANDEM_SERVER="$broker_url" TANDEM_CONTROL_PLANE="$control_plane_url"
take_down() { "$tandem" --quiet down --file docs/demo/shop.yaml --workspace-too >/dev/null 2>&1 || true; }
on_exit take_down
printf '\n$ tandem up --file docs/demo/shop.yaml\n'
timeout 120 "$tandem" up --file docs/demo/shop.yaml
printf '\n'
timeout 300 python3 tools/demo_team.py "$tandem" "$orders"
printf '\nThe same by hand: make run, and in a second terminal: %s up --file docs/demo/shop.yaml\n' "$tandem"
