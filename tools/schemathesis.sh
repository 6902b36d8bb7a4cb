#!/usr/bin/env bash
# Calls every operation of the REST service with thousands of requests that its own description allows, and with those that it
# forbids: no answer may be a server error, or one that the description does not tell of (schemathesis).
# Needs Python 3.11.
# Usage: tools/schemathesis.sh [MOST_EXAMPLES [SEED]]    (default: 30 requests of each kind and operation, and always the same ones)
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/env.sh
. tools/scratch_broker.sh
examples="${1:-30}" seed="${2:-1}"
venv="$AINTANDEM_CACHE/schemathesis"
pins="$PWD/tools/schemathesis/requirements.txt"

if ! cmp --quiet "$pins" "$venv/installed"; then
    printf 'schemathesis: installing it into %s\n' "$venv" >&2
    rm -f "$venv/installed"
    python3 -m venv --upgrade-deps "$venv" >/dev/null || python3 -m venv --clear "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary=:all: --require-hashes -r "$pins"
    cp "$pins" "$venv/installed"
fi
tools/docker.sh
tools/image.sh
build_tandem
start_dev "$scratch/data"
# What it has made goes with its workspaces; the containers before the folder in which they are known.
take_down() { python3 tools/schemathesis/take_down.py "$control_plane_url" || true; }
on_exit take_down
# Left out: what would fail because nobody has to say who he is under `tandem dev`; what is told of methods that a path has not; and
# that all is accepted that fits the description, which does not tell what a tag, a cursor or a policy looks like.
"$venv/bin/schemathesis" --config-file tools/schemathesis/schemathesis.toml run "$control_plane_url/api/v1/openapi.json" \
    --header 'Authorization: Bearer anybody' \
    --exclude-checks missing_required_header,ignored_auth,unsupported_method,positive_data_acceptance \
    --max-examples "$examples" --seed "$seed" --generation-database none --workers 2 --no-color
