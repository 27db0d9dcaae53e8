#!/usr/bin/env bash
# An engine and three nodes on this machine, for trying out; Ctrl-C ends all of them.
#
#   .config/cluster/try.sh [FOLDER]
#
# FOLDER (a new one below /tmp, if none is named) keeps the engine's data and each node's messages.txt,
# so that the next start goes on from there. PORT (8001) is the first node's port, the others follow;
# ENGINE_PORT (6399) is the engine's. TXTCORD is the program, if it is not the one that cargo builds.
set -euo pipefail
cd "$(dirname "$0")/../.."

folder=${1:-$(mktemp -d /tmp/txtcord-cluster.XXXXXX)}
port=${PORT:-8001} engine_port=${ENGINE_PORT:-6399}
engine=$(command -v redis-server || command -v valkey-server) || {
  echo "there is no redis-server (apt-get install redis-server) and no valkey-server" >&2
  exit 69
}
program=${TXTCORD:-}
if [ -z "$program" ]; then
  cargo build --release
  program=${CARGO_TARGET_DIR:-$PWD/target}/release/txtcord
fi

[ -x "$program" ] || { echo "there is no program $program" >&2; exit 66; }

children=()
end() {
  trap - EXIT INT TERM
  # The nodes first: they store what waits.
  for ((i = ${#children[@]} - 1; i >= 0; i--)); do
    kill -TERM "${children[i]}" 2>/dev/null || true
    wait "${children[i]}" 2>/dev/null || true
  done
}
trap end EXIT
trap 'end; exit 0' INT TERM

mkdir -p "$folder/engine"
# In the background and away from the terminal's Ctrl-C, so that the order of the end is ours.
start() { # FOLDER, COMMAND...
  (cd "$1" && trap '' INT && exec "${@:2}") &
  children+=($!)
}
start "$folder/engine" "$engine" --port "$engine_port" --bind 127.0.0.1 --save "" \
  --appendonly yes --appendfsync always --maxmemory-policy noeviction --logfile engine.log
for ((i = 0; i < 3; i++)); do
  mkdir -p "$folder/node$((i + 1))"
  start "$folder/node$((i + 1))" "$program" --listen "127.0.0.1:$((port + i))" \
    --cluster "redis://127.0.0.1:$engine_port/0"
done

echo "three nodes at http://127.0.0.1:$port/ to http://127.0.0.1:$((port + 2))/, files in $folder"
echo "processes: ${children[*]}"
# The first that ends by itself ends the others.
wait -n "${children[@]}" || true
