#!/bin/bash
# Gets the MySQL server that the tests use and prints the path of a `mysqld` that starts it.
#
#   mysql.sh           the path
#   mysql.sh --info    name=value lines: mysqld, binary, plugin_dir, version, source
#
# The first that is there wins:
#   1. $STILLFRAME_MYSQL       an install root (of several, separated by colons, the first one)
#   2. mysqld on the PATH      if its version is supported
#   3. a pinned root           mysql/mysql-*-rootfs.tar.xz of it (pinned.sh says where that is), unpacked into the cache
#   4. an earlier run's        root in the cache
#   5. Debian's packages       of the suite sid (on Ubuntu: its own newest), unpacked into the cache, without root
#
# What is printed is a small script: a root of a newer system needs its own loader and paths, and mysqld wants to be
# told that it may run as root. Safe to call again and by several at once: only the first one works.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/stillframe
say() { echo "mysql.sh: $*" >&2; }
die() {
	say "$*"
	exit 1
}

mkdir -p "$cache"
exec 9>"$cache/mysql.lock"
flock 9

# The version that a mysqld says it is, "9.7.4".
version_of() { "$1" --no-defaults --version 2>/dev/null | sed -nE 's/.* Ver ([0-9]+\.[0-9]+\.[0-9]+).*/\1/p'; }

supported() {
	local major minor patch
	IFS=. read -r major minor patch <<<"$1"
	case $major.$minor in
	8.0) [ "$patch" -ge 30 ] ;;
	8.4 | 9.*) true ;;
	*) false ;;
	esac
}

first_existing() {
	local path
	for path in "$@"; do
		if [ -e "$path" ]; then
			echo "$path"
			return
		fi
	done
}

binary_of() { first_existing "$1/usr/sbin/mysqld" "$1/sbin/mysqld" "$1/bin/mysqld"; }

# wrapper_for BINARY ROOT: writes the script that starts it, prints the script's path.
wrapper_for() {
	local binary=$1 root=${2%/} loader='' libraries='' options='' dir part
	if [ -n "$root" ]; then
		loader=$(first_existing "$root"/usr/lib/*-linux-gnu/ld-linux-*.so.? "$root"/lib/*-linux-gnu/ld-linux-*.so.?)
		if [ -d "$root/usr/share/mysql" ]; then
			options="--basedir='$root/usr' --lc-messages-dir='$root/usr/share/mysql'"
			options+=" --character-sets-dir='$root/usr/share/mysql/charsets' --plugin-dir='$root/usr/lib/mysql/plugin'"
		else
			options="--basedir='$root'"
		fi
	fi
	if [ -n "$loader" ]; then
		part=$(dirname "$loader")
		libraries=$root/usr/lib/mysql/private:$part
		part="'$loader' --library-path '$libraries' "
	else
		part=
		# Ubuntu confines the packaged binary to its own directories, by its path. A copy is not confined.
		if [ -e /etc/apparmor.d/usr.sbin.mysqld ] && [ "$binary" = /usr/sbin/mysqld ]; then
			mkdir -p "$cache/unconfined"
			cmp -s "$binary" "$cache/unconfined/mysqld" || install "$binary" "$cache/unconfined/mysqld"
			binary=$cache/unconfined/mysqld
			options=${options:---basedir=/usr}
		fi
	fi
	dir=$cache/bin/$(printf %s "$binary" | cksum | cut -d' ' -f1)
	mkdir -p "$dir"
	cat >"$dir/mysqld.new" <<-WRAPPER
		#!/bin/bash
		# Starts mysqld with what it needs to be found elsewhere than where it was built for. Made by tests/setup/mysql.sh.
		# STILLFRAME_MYSQLD_BINARY may name a link to the same binary: the keyring's manifest is looked for beside it.
		leading=() user=()
		while [[ \${1:-} == --no-defaults || \${1:-} == --defaults-* || \${1:-} == --print-defaults ]]; do
			leading+=("\$1")
			shift
		done
		[ "\$(id -u)" != 0 ] || user=(--user=root)
		exec $part"\${STILLFRAME_MYSQLD_BINARY:-$binary}" "\${leading[@]}" $options --secure-file-priv=NULL "\${user[@]}" "\$@"
	WRAPPER
	chmod 755 "$dir/mysqld.new"
	if cmp -s "$dir/mysqld.new" "$dir/mysqld"; then rm "$dir/mysqld.new"; else mv "$dir/mysqld.new" "$dir/mysqld"; fi
	echo "$dir/mysqld"
}

# use ROOT WHAT: makes the root the answer, if it holds a supported server.
use() {
	local version
	binary=$(binary_of "$1")
	[ -n "$binary" ] || return 1
	mysqld=$(wrapper_for "$binary" "$1")
	version=$(version_of "$mysqld")
	if [ -z "$version" ]; then
		say "$binary ($2) does not start: $("$mysqld" --no-defaults --version 2>&1 | head -3)"
		return 1
	fi
	if ! supported "$version"; then
		say "$binary ($2) is MySQL $version: not supported (8.0.30 and later, 8.4, 9.x are)"
		return 1
	fi
	found_version=$version found_source=$2
}

unpack_pinned() {
	local archive name
	archive=$("$repo/tests/setup/pinned.sh" 'mysql/mysql-*-rootfs.tar.xz')
	[ -n "$archive" ] || return 1
	name=$(basename "$archive" -rootfs.tar.xz)
	if [ ! -d "$cache/$name" ]; then
		say "unpacking $name"
		rm -rf "$cache/$name.partial"
		mkdir "$cache/$name.partial"
		tar -C "$cache/$name.partial" --no-same-owner --exclude='./dev/*' --exclude='dev/*' -xJf "$archive"
		mv "$cache/$name.partial" "$cache/$name"
	fi
	echo "$cache/$name"
}

newest_cached() {
	local root
	for root in $(ls -d "$cache"/mysql-[0-9]* 2>/dev/null | sort -rV); do
		case $root in *.partial) continue ;; esac
		if [ -n "$(binary_of "$root")" ]; then
			echo "$root"
			return
		fi
	done
	return 1
}

# The mirror that this machine installs from, of either form of source list.
mirror() {
	{
		cat /etc/apt/sources.list.d/*.sources 2>/dev/null | sed -nE 's/^URIs:[[:space:]]*([^[:space:]]+).*/\1/p'
		cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
			sed -nE 's/^deb[[:space:]]+(\[[^]]*\][[:space:]]+)?([^[:space:]]+).*/\2/p'
	} | grep -v -e security -e backports | grep -E "/$1(-ports)?/?\$" | head -1
}

unpack_packages() {
	local distribution suite key url work version packages=(mysql-server-core mysql-client-core) apt archive
	command -v apt-get >/dev/null && command -v dpkg >/dev/null || die "no mysqld, and no apt to get one with: set STILLFRAME_MYSQL to an install root"
	distribution=$(. /etc/os-release && echo "$ID")
	url=$(mirror "$distribution")
	case $distribution in
	debian) suite=sid key=/usr/share/keyrings/debian-archive-keyring.gpg ;;
	ubuntu)
		suite=$(. /etc/os-release && echo "$VERSION_CODENAME") key=/usr/share/keyrings/ubuntu-archive-keyring.gpg
		packages=(mysql-server-core-8.0 mysql-client-core-8.0)
		apt-cache show mysql-server-core >/dev/null 2>&1 && packages=(mysql-server-core mysql-client-core)
		;;
	*) die "no mysqld, and none can be had on $distribution: set STILLFRAME_MYSQL to an install root" ;;
	esac
	[ -n "$url" ] || die "no $distribution mirror in /etc/apt: set STILLFRAME_MYSQL to an install root"
	[ -e "$key" ] || die "$key is missing: install ${key##*/} or set STILLFRAME_MYSQL to an install root"

	say "getting ${packages[*]} of $distribution $suite"
	work=$cache/packages.partial
	rm -rf "$work"
	mkdir -p "$work"/{lists/partial,cache/archives/partial,root}
	: >"$work/status"
	echo "deb [signed-by=$key] $url $suite main universe" >"$work/sources.list"
	[ "$distribution" = ubuntu ] || sed -i 's/ universe//' "$work/sources.list"
	apt=(apt-get -q -y -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$work/lists"
		-o Dir::State::status="$work/status" -o Dir::Cache="$work/cache" -o Debug::NoLocking=1
		-o APT::Install-Recommends=false -o APT::Sandbox::User= -o Acquire::Retries=3 -o Acquire::Languages=none)
	"${apt[@]}" update >"$work/log" 2>&1 || die "apt-get update failed: $(tail -5 "$work/log")"
	"${apt[@]}" install --download-only "${packages[@]}" >>"$work/log" 2>&1 || die "apt-get failed: $(tail -5 "$work/log")"
	for archive in "$work"/cache/archives/*.deb; do dpkg -x "$archive" "$work/root"; done
	version=$(cd "$work/cache/archives" && ls mysql-server-core*.deb | head -1 | cut -d_ -f2 | sed 's/%3a/:/')
	rm -rf "${cache:?}/mysql-$version"
	mv "$work/root" "$cache/mysql-$version"
	rm -rf "$work"
	say "got MySQL $version"
	echo "$cache/mysql-$version"
}

choose() {
	local root path
	if [ -n "${STILLFRAME_MYSQL:-}" ]; then
		use "${STILLFRAME_MYSQL%%:*}" STILLFRAME_MYSQL || die "STILLFRAME_MYSQL names ${STILLFRAME_MYSQL%%:*}, which holds no usable mysqld"
		return
	fi
	path=$(command -v mysqld || true)
	if [ -n "$path" ] && [ "$path" -ef "$(binary_of /)" ] && use / PATH; then return; fi
	if root=$(unpack_pinned) && use "$root" pinned; then return; fi
	if root=$(newest_cached) && use "$root" cache; then return; fi
	root=$(unpack_packages)
	use "$root" packages || die "the packages hold no usable mysqld"
}

choose
case ${1:-} in
'') echo "$mysqld" ;;
--info)
	plugins=$("$mysqld" --no-defaults --verbose --help 2>/dev/null | sed -nE 's/^plugin-dir[[:space:]]+(.*[^/])\/?$/\1/p')
	printf '%s=%s\n' mysqld "$mysqld" binary "$binary" plugin_dir "$plugins" version "$found_version" source "$found_source"
	;;
*) die "unknown option $1" ;;
esac
