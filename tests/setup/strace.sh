#!/bin/bash
# Finds or gets strace, with which a test sees what a program makes the system do, and prints the path of its program.
#
#   STILLFRAME_STRACE   taken if set
#   on the PATH         taken if there
#   else                this distribution's package, unpacked once into ${XDG_CACHE_HOME:-~/.cache}/stillframe/strace,
#                       without root (Debian and what comes from it)
#
# Safe to call at the same time from several places. Messages go to standard error, the path alone to standard output.
set -euo pipefail

say() { echo "strace.sh: $*" >&2; }
die() {
	say "$*"
	exit 1
}

if [ -n "${STILLFRAME_STRACE:-}" ]; then
	[ -x "$STILLFRAME_STRACE" ] || die "STILLFRAME_STRACE names no program: $STILLFRAME_STRACE"
	echo "$STILLFRAME_STRACE"
	exit
fi
if command -v strace; then exit; fi

cache=${XDG_CACHE_HOME:-$HOME/.cache}/stillframe
home=$cache/strace
program=$home/strace
mkdir -p "$cache"
exec 9>"$cache/strace.lock"
flock 9
if [ -x "$program" ]; then
	echo "$program"
	exit
fi
command -v apt-get >/dev/null && command -v dpkg >/dev/null ||
	die "no strace, and no apt to get it with: install it, or name one by STILLFRAME_STRACE"

# With all libraries that it needs, as if nothing was installed: only this folder is written.
say "getting strace"
work=$home.partial
rm -rf "$work"
mkdir -p "$work"/{lists/partial,cache/archives/partial,files}
: >"$work/status"
apt=(apt-get -q -y -o Dir::State::lists="$work/lists" -o Dir::State::status="$work/status" -o Dir::Cache="$work/cache"
	-o Debug::NoLocking=1 -o APT::Install-Recommends=false -o APT::Sandbox::User= -o Acquire::Retries=3
	-o Acquire::Languages=none)
"${apt[@]}" update >"$work/log" 2>&1 || die "apt-get update failed: $(tail -5 "$work/log")"
"${apt[@]}" install --download-only strace >>"$work/log" 2>&1 || die "apt-get failed: $(tail -5 "$work/log")"
for archive in "$work"/cache/archives/*.deb; do dpkg -x "$archive" "$work/files"; done
rm -rf "$work"/{lists,cache,status} "$home"
mv "$work" "$home"

# Started by the loader that came with it, which finds what came with it.
loader=$(ls -d "$home"/files/{usr/,}lib/*-linux-gnu/ld-linux-*.so.? 2>/dev/null | head -1 || true)
[ -n "$loader" ] || die "strace's package came without a loader"
paths=$(ls -d "$home"/files/{usr/,}lib/*-linux-gnu 2>/dev/null | paste -sd: || true)
cat >"$program.new" <<-WRAPPER
	#!/bin/bash
	# Starts strace with the libraries that came with it. Made by tests/setup/strace.sh.
	exec '$loader' --library-path '$paths' '$home/files/usr/bin/strace' "\$@"
WRAPPER
chmod 755 "$program.new"
"$program.new" -V >/dev/null || die "strace does not start"
mv "$program.new" "$program"
echo "$program"
