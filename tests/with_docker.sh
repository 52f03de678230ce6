#!/usr/bin/env bash
# Runs a command with a Docker Engine to talk to: the one that answers, or else, where root may start one, one of its
# own for as long as the command runs. Where there is none the tests that need one say so.
set -euo pipefail
if docker version >/dev/null 2>&1 || ! command -v dockerd >/dev/null || [ "$(id -u)" != 0 ]; then
  exec "$@"
fi

folder=$(mktemp -d)
export DOCKER_HOST=unix://$folder/docker.sock
# The client that came with dockerd knows its BuildKit; another that stands before it in PATH may not.
ln -s "$(dirname "$(command -v dockerd)")/../bin/docker" "$folder/docker"
PATH=$folder:$PATH
dockerd --iptables=false --ip6tables=false --bridge=none --host "$DOCKER_HOST" --data-root "$folder/root" \
  --exec-root "$folder/exec" --pidfile "$folder/pid" >"$folder/log" 2>&1 &
engine=$!
stop() {
  kill $engine 2>/dev/null && wait $engine || true
  umount "$folder"/exec/netns/* 2>/dev/null || true # dockerd leaves the network of its containers mounted
  rm -rf "$folder" >/dev/null 2>&1 & # some disks take minutes for these gigabytes: nobody need wait
}
trap stop EXIT
for _ in {1..120}; do
  docker version >/dev/null 2>&1 && ready=yes && break
  kill -0 $engine || break
  sleep 0.5
done
[ -n "${ready:-}" ] || { echo "error: dockerd does not answer:" >&2; tail -20 "$folder/log" >&2; exit 1; }
"$@"
