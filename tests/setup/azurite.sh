#!/usr/bin/env bash
# Azurite: an emulator of Azure's blob store. Finds or installs it (needs Node) and prints the path of its program.
set -euo pipefail

version=3.37.0
if [[ -n ${STILLFRAME_AZURITE:-} ]]; then
  printf '%s\n' "$STILLFRAME_AZURITE"
  exit
fi
if command -v azurite-blob; then exit; fi
cache=${XDG_CACHE_HOME:-$HOME/.cache}/stillframe
home=$cache/azurite-$version
program=$home/node_modules/.bin/azurite-blob
mkdir -p "$cache"
exec 9>"$cache/azurite.lock"
flock 9
if [[ ! -x $program ]]; then
  npm install --prefix "$home" --no-audit --no-fund "azurite@$version" >&2
fi
printf '%s\n' "$program"
