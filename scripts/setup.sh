#!/bin/sh
# Installs what Chainstream needs and the machine lacks: PostgreSQL 15 or newer
# with pgvector; with --test also Chromium, Node and npm for the browser tests,
# nginx, Caddy and PgBouncer, which the tests start themselves. Then it has
# fetch-models.sh fetch the embedding model and PDFium.
#
#   scripts/setup.sh [--test]
#
# Debian 12 and 13, Ubuntu 24.04 and newer (as root or with sudo), and macOS
# with Homebrew. It may be run any number of times: what is there is left alone.
# It creates no database cluster and starts no service; Chainstream runs a
# cluster of its own.
set -eu

oldest_postgres=15
oldest_node=20
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
temp=
updated=

say() { printf 'setup: %s\n' "$*"; }
fail() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}

clean() {
    if [ -n "$temp" ]; then rm -rf "$temp"; fi
    # With it, installing PostgreSQL makes no default cluster; see
    # install_postgres. It must not outlive this run.
    if [ -n "${no_cluster:-}" ]; then as_root rm -f "$no_cluster"; fi
    if [ -n "${policy:-}" ]; then as_root rm -f "$policy"; fi
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif ! command -v sudo >/dev/null 2>&1; then
        fail "'$*' needs root: run this script as root, or install sudo"
    elif [ "${CI:-}" = true ]; then
        sudo -n "$@"
    else
        sudo "$@"
    fi
}

major_of() { sed -n 's/^postgres (PostgreSQL) \([0-9]*\).*/\1/p'; }

# postgres_bins lists the folders of installed PostgreSQLs, newest first, as
# "major folder".
postgres_bins() {
    for bin in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin \
        /opt/homebrew/opt/postgresql*/bin /usr/local/opt/postgresql*/bin; do
        if [ -x "$bin/postgres" ] && [ -x "$bin/initdb" ]; then
            major=$("$bin/postgres" --version </dev/null | major_of)
            if [ "${major:-0}" -ge "$oldest_postgres" ]; then echo "$major $bin"; fi
        fi
    done | sort -rn
}

has_vector() { # folder of programs
    share=$("$1/pg_config" --sharedir </dev/null 2>/dev/null) && [ -f "$share/extension/vector.control" ]
}

# ready_postgres prints the first PostgreSQL that has pgvector.
ready_postgres() {
    postgres_bins | while read -r major bin; do
        if has_vector "$bin"; then
            echo "$major $bin"
            break
        fi
    done
}

check_go() {
    wanted=$(sed -n 's/^go \([0-9.]*\).*/\1/p' "$root/go.mod")
    remedy="install Go $wanted or newer from https://go.dev/dl/"
    command -v go >/dev/null 2>&1 || fail "Go is missing: $remedy"
    # Inside the module, a Go that fetches its own successors has done so.
    found=$(cd "$root" && go env GOVERSION </dev/null 2>/dev/null) ||
        fail "$(go version </dev/null) is older than $wanted and could not fetch a newer one: $remedy"
    found=${found#go}
    oldest=$(printf '%s\n%s\n' "$wanted" "$found" | sort -V | head -n 1)
    [ "$oldest" = "$wanted" ] || fail "Go $found is older than $wanted: $remedy"
    say "Go $found: present"
}

# --- Debian and Ubuntu ------------------------------------------------------

apt() {
    as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l apt-get -q -y \
        -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 \
        -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold \
        "$@" </dev/null
}

# quietly keeps the chatter of a command for the case that it fails.
quietly() {
    if ! "$@" >"$temp/output" 2>&1; then
        cat "$temp/output" >&2
        fail "failed: $*"
    fi
}

update_lists() {
    [ -z "$updated" ] || return 0
    updated=yes
    say "refreshing the package lists"
    # A list that cannot be had need not be one that is needed.
    apt update >"$temp/output" 2>&1 || { cat "$temp/output" >&2 && say "some package lists could not be refreshed; going on"; }
}

apt_install() {
    update_lists
    say "installing $*"
    quietly apt install --no-install-recommends "$@"
}

# candidate prints the version that would be installed, nothing if there is none.
candidate() { apt-cache policy "$1" 2>/dev/null | sed -n 's/^  Candidate: //p' | grep -v '^(none)$' || true; }

install_postgres() {
    update_lists
    major=$(candidate postgresql | sed -n 's/^\([0-9]*\).*/\1/p')
    [ "${major:-0}" -ge "$oldest_postgres" ] ||
        fail "this distribution has PostgreSQL ${major:-none}, $oldest_postgres or newer is needed: add the repository of https://wiki.postgresql.org/wiki/Apt and run this again"
    # The packages make and start a cluster "main" that nobody asked for here.
    # Only for this installation, and only where no other one is affected.
    if [ ! -e /etc/postgresql-common/createcluster.d/chainstream-setup.conf ]; then
        no_cluster=/etc/postgresql-common/createcluster.d/chainstream-setup.conf
        as_root mkdir -p "$(dirname "$no_cluster")"
        echo 'create_main_cluster = false' | as_root tee "$no_cluster" >/dev/null
    fi
    apt_install "postgresql-$major"
    as_root rm -f "$no_cluster"
    no_cluster=
}

install_vector() { # major version, folder of programs
    update_lists
    if [ -n "$(candidate "postgresql-$1-pgvector")" ]; then
        apt_install "postgresql-$1-pgvector"
    elif [ "$ID" = debian ]; then
        build_vector "$1" "$2"
    else
        fail "$PRETTY_NAME has no pgvector for PostgreSQL $1: add the repository of https://wiki.postgresql.org/wiki/Apt and run this again"
    fi
}

# debian_mirror prints the address that this machine gets Debian from.
debian_mirror() {
    # shellcheck disable=SC2016 # the names are apt's
    apt-get indextargets --format '$(REPO_URI) $(ORIGIN) $(CODENAME) $(COMPONENT)' 'Created-By: Packages' |
        while read -r uri origin codename component; do
            if [ "$origin $codename $component" = "Debian $VERSION_CODENAME main" ]; then
                echo "$uri"
                break
            fi
        done
}

# build_vector builds Debian's own source package of pgvector, which the next
# release has, against the PostgreSQL of this one. The source list, the package
# lists and the build live in a temporary folder: apt never sees that release
# otherwise, and no package of it is installed.
build_vector() {
    mirror=$(debian_mirror)
    [ -n "$mirror" ] || fail "apt has no source for Debian $VERSION_CODENAME: cannot tell which mirror to take pgvector's source from"
    apt_install "postgresql-server-dev-$1" dpkg-dev gcc libc6-dev make
    say "building pgvector for PostgreSQL $1 from Debian's source package ($mirror)"
    mkdir -p "$temp/lists/partial" "$temp/cache/archives/partial" "$temp/source"
    cat >"$temp/trixie.sources" <<LIST
Types: deb-src
URIs: $mirror
Suites: trixie
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
LIST
    (
        cd "$temp/source"
        set -- -q -o "Dir::Etc::sourcelist=$temp/trixie.sources" -o Dir::Etc::sourceparts=/dev/null \
            -o "Dir::State::lists=$temp/lists" -o "Dir::Cache=$temp/cache" -o Acquire::Retries=3 \
            -o Acquire::Languages=none -o "APT::Sandbox::User=$(id -un)"
        quietly apt-get "$@" update </dev/null
        quietly apt-get "$@" source --only-source pgvector </dev/null
    )
    source=$(find "$temp/source" -mindepth 1 -maxdepth 1 -type d -name 'pgvector-*')
    quietly make -C "$source" -j "$(nproc)" with_llvm=no "PG_CONFIG=$2/pg_config" </dev/null
    quietly as_root make -C "$source" install with_llvm=no "PG_CONFIG=$2/pg_config" </dev/null
    has_vector "$2" || fail "pgvector was built but is not where PostgreSQL looks for it"
}

install_browser() {
    if command -v chromium >/dev/null 2>&1 || command -v google-chrome >/dev/null 2>&1; then
        say "Chromium: present"
    elif [ "$ID" = ubuntu ]; then
        # Ubuntu's package of that name fetches a snap, which containers cannot run.
        fail "Chromium is missing: install Google Chrome or Chromium and run this again"
    else
        apt_install chromium
    fi
    if ! command -v node >/dev/null 2>&1 || ! command -v npm >/dev/null 2>&1; then
        apt_install nodejs npm
    fi
    if [ "$(node_major)" -lt "$oldest_node" ]; then
        # The distribution's Node is too old; npm has newer ones and puts them
        # into /usr/local, where they come first.
        say "installing Node $oldest_node from npm ($(node --version </dev/null) is too old)"
        quietly as_root npm install --global --no-fund --no-audit "node@$oldest_node" </dev/null
        hash -r
    fi
    [ "$(node_major)" -ge "$oldest_node" ] || fail "Node $oldest_node or newer is needed, found $(node --version </dev/null)"
    say "Node $(node --version </dev/null), npm $(npm --version </dev/null): present"
}

# install_servers brings the programs that tests put around a server. Only the
# programs are wanted: nothing may start the services that come with them.
install_servers() {
    for program in nginx caddy pgbouncer; do
        if command -v "$program" >/dev/null 2>&1 || [ -x "/usr/sbin/$program" ]; then
            say "$program: present"
            continue
        fi
        policy=/usr/sbin/policy-rc.d
        if [ -e "$policy" ]; then
            policy=
        else
            printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
            as_root chmod +x "$policy"
        fi
        apt_install "$program"
        [ -z "$policy" ] || as_root rm -f "$policy"
        policy=
    done
}

node_major() { node --version </dev/null | sed 's/^v\([0-9]*\).*/\1/'; }

setup_debian() {
    # One run at a time. The folder is only something that every user can open.
    exec 9</var/lib/dpkg
    flock -n 9 || { say "another set-up is running: waiting for it" && flock 9; }
    if [ -z "$(ready_postgres)" ]; then
        if [ -z "$(postgres_bins)" ]; then install_postgres; fi
        newest=$(postgres_bins | head -n 1)
        [ -n "$newest" ] || fail "PostgreSQL was installed but is not in /usr/lib/postgresql"
        if ! has_vector "${newest#* }"; then install_vector "${newest%% *}" "${newest#* }"; fi
    fi
}

# --- macOS ------------------------------------------------------------------

setup_macos() {
    command -v brew >/dev/null 2>&1 || fail "Homebrew is missing: install it from https://brew.sh and run this again"
    export NONINTERACTIVE=1 HOMEBREW_NO_ENV_HINTS=1
    if [ -z "$(ready_postgres)" ]; then
        for formula in postgresql@17 pgvector; do
            if brew list --versions "$formula" >/dev/null 2>&1 </dev/null; then
                say "$formula: present"
            else
                say "installing $formula"
                quietly brew install "$formula" </dev/null
            fi
        done
    fi
    [ -z "$with_tests" ] || {
        if [ -d "/Applications/Google Chrome.app" ] || [ -d /Applications/Chromium.app ]; then
            say "Chromium: present"
        else
            say "installing Chromium"
            quietly brew install --cask chromium </dev/null
        fi
        if command -v node >/dev/null 2>&1 && [ "$(node_major)" -ge "$oldest_node" ]; then
            say "Node $(node --version </dev/null): present"
        else
            say "installing node"
            quietly brew install node </dev/null
        fi
        for program in nginx caddy pgbouncer; do
            if command -v "$program" >/dev/null 2>&1; then
                say "$program: present"
            else
                say "installing $program"
                quietly brew install "$program" </dev/null
            fi
        done
    }
}

# ----------------------------------------------------------------------------

with_tests=
for argument in "$@"; do
    case $argument in
    --test) with_tests=yes ;;
    *)
        sed -n 's/^# \{0,1\}//p' "$0" | sed 1d | sed '/^$/q' >&2
        fail "unknown option $argument"
        ;;
    esac
done

trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
temp=$(mktemp -d)

check_go
case $(uname -s) in
Darwin) setup_macos ;;
Linux)
    # shellcheck source=/dev/null
    . /etc/os-release
    command -v apt-get >/dev/null 2>&1 ||
        fail "$PRETTY_NAME is not supported by this script: install PostgreSQL $oldest_postgres or newer with pgvector, then use Chainstream as usual"
    setup_debian
    [ -z "$with_tests" ] || {
        install_browser
        install_servers
    }
    ;;
*) fail "$(uname -s) is not supported: Chainstream runs on Linux and macOS" ;;
esac

ready=$(ready_postgres)
[ -n "$ready" ] || fail "PostgreSQL with pgvector is still missing"
say "PostgreSQL ${ready%% *} with pgvector in ${ready#* }: ready"
"$root/scripts/fetch-models.sh" ${with_tests:+--needed}
