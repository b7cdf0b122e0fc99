#!/bin/sh
# Fetches the manuals that searches are measured on, from Debian's packages, into
# build/eval. Nothing is installed.
#
#   scripts/fetch-eval.sh [CORPUS...]
#
# debian-faq, python and postgresql are the corpora; all of them without arguments.
# It may be run any number of times: what is there is left alone.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
target=$root/build/eval
temp=

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$1" >&2 && exit 1; }
clean() { if [ -n "$temp" ]; then rm -rf "$temp"; fi; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# package answers the newest package whose name a pattern matches.
package() { apt-cache pkgnames "$1" 2>/dev/null | grep -E "$2" | sort -V | tail -n 1; }

name() { # corpus
    case $1 in
    debian-faq) package debian-faq '^debian-faq$' ;;
    python) package python3. '^python3\.[0-9]+-doc$' ;;
    postgresql) package postgresql-doc- '^postgresql-doc-[0-9]+$' ;;
    *) fail "there is no corpus $1; there are debian-faq, python and postgresql" ;;
    esac
}

# present tells whether a corpus is there.
present() {
    case $1 in
    debian-faq) test -d "$target/debian-faq" ;;
    python) ls -d "$target"/python3.*-doc >/dev/null 2>&1 ;;
    postgresql) ls -d "$target"/postgresql-doc-* >/dev/null 2>&1 ;;
    *) return 1 ;;
    esac
}

fetch() { # package
    (cd "$temp" && apt-get download "$1" </dev/null >"$temp/output" 2>&1)
}

[ $# -gt 0 ] || set -- debian-faq python postgresql
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
for corpus in "$@"; do
    if present "$corpus"; then
        say "manuals of $corpus in build/eval: present"
        continue
    fi
    command -v apt-get >/dev/null 2>&1 || fail "the manuals of $corpus come from Debian's packages, and apt-get is missing; unpack the package into build/eval/NAME by other means"
    mkdir -p "$target"
    temp=${temp:-$(mktemp -d "$target/.fetch.XXXXXX")}
    found=$(name "$corpus")
    if [ -z "$found" ] || ! fetch "$found"; then
        say "reading the list of packages"
        as_root apt-get update -qq </dev/null >/dev/null
        found=$(name "$corpus")
        [ -n "$found" ] || fail "there is no package with the manuals of $corpus"
        fetch "$found" || { cat "$temp/output" >&2 && fail "$found could not be fetched"; }
    fi
    mkdir "$temp/$found"
    dpkg-deb -x "$temp/$found"_*.deb "$temp/$found"
    mv "$temp/$found" "$target/$found"
    say "manuals of $corpus in build/eval/$found: ready"
done
