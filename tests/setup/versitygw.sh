#!/usr/bin/env bash
# Finds or installs versitygw, a real S3 server that keeps its objects as files, and prints the path of its program.
#
#   STILLFRAME_VERSITYGW   taken if set
#   on the PATH            taken if there
#   else                   built once into ${XDG_CACHE_HOME:-~/.cache}/stillframe/versitygw-VERSION, without root
#
# Safe to call at the same time from several places. Messages go to standard error, the path alone to standard output.
set -euo pipefail

version=v1.8.0
module=github.com/versity/versitygw/cmd/versitygw

say() { printf 'versitygw.sh: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

if [[ -n ${STILLFRAME_VERSITYGW:-} ]]; then
  [[ -x $STILLFRAME_VERSITYGW ]] || fail "STILLFRAME_VERSITYGW names no program: $STILLFRAME_VERSITYGW"
  printf '%s\n' "$STILLFRAME_VERSITYGW"
  exit
fi
if command -v versitygw; then exit; fi

cache=${XDG_CACHE_HOME:-$HOME/.cache}/stillframe
home=$cache/versitygw-$version
program=$home/versitygw
mkdir -p "$cache"
if [[ ! -x $program ]]; then
  exec 9>"$cache/versitygw.lock"
  flock 9
fi
if [[ -x $program ]]; then
  printf '%s\n' "$program"
  exit
fi

work=$(mktemp -d "$cache/versitygw-build.XXXXXX")
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT

go=$("$(dirname "$(realpath "${BASH_SOURCE[0]}")")/go.sh") || fail "name a versitygw by STILLFRAME_VERSITYGW, or install Go"
say "building versitygw $version with $("$go" env GOVERSION) (some minutes)"
case $go in
  "$cache"/*) # fetched for this: what it keeps goes with the build
    export GOPATH=$work/gopath GOCACHE=$work/gocache GOFLAGS=-modcacherw
    unset GOROOT
    ;;
esac
export CGO_ENABLED=0 GOBIN=$work/bin
"$go" install -trimpath -ldflags '-s -w' "$module@$version" >&2
mkdir -p "$home"
mv "$work/bin/versitygw" "$program.new"
mv "$program.new" "$program"
printf '%s\n' "$program"
