#!/usr/bin/env bash
# Sees to it that a Docker daemon answers: starts one where none does, when this is root and dockerd is here.
# Usage: tools/docker.sh    (silent when one answers)
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/env.sh

answers() { docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

answers && exit 0
if [ -n "${DOCKER_HOST:-}" ] || [ "$EUID" -ne 0 ] || ! command -v dockerd >/dev/null; then
    echo "docker: no daemon answers. Start one (Debian: apt-get install docker.io), or set DOCKER_HOST, then try again" >&2
    exit 1
fi
echo "docker: starting a daemon; its log is $AINTANDEM_CACHE/dockerd.log" >&2
mkdir -p "$AINTANDEM_CACHE"
setsid nohup dockerd >"$AINTANDEM_CACHE/dockerd.log" 2>&1 </dev/null &
for _ in $(seq 150); do
    answers && exit 0
    sleep 0.2
done
tail -n 5 "$AINTANDEM_CACHE/dockerd.log" >&2
echo "docker: the daemon does not answer after 30 s" >&2
exit 1
