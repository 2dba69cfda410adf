#!/usr/bin/env bash
# setup.sh [DIR]: installs the programs that compare.py measures, on Debian as root: restic from Debian, borg and benji from PyPI.
# A newer restic is taken from Debian's next release where it can be had (unpacked in DIR, not installed). Leaves DIR/PEERS.env to source.
set -euo pipefail
directory=${1:-$HOME/.cache/snapferry-peers}
next_release=trixie
mkdir -p "$directory"
cd "$directory"

export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq install -y --no-install-recommends restic e2fsprogs python3-venv build-essential python3-dev pkg-config \
    libssl-dev liblz4-dev libzstd-dev libxxhash-dev libacl1-dev >/dev/null
restic=$(command -v restic)

newer_restic() {
    local sources=/etc/apt/sources.list.d/debian.sources
    [ -f "$sources" ] || return 1
    mkdir -p next/lists/partial next/cache/archives/partial
    awk 'BEGIN { RS = ""; ORS = "\n\n" } !/security/' "$sources" | sed "s/^Suites:.*/Suites: $next_release/" >next/next.sources
    local options=(-o "Dir::State::lists=$PWD/next/lists" -o "Dir::Cache=$PWD/next/cache"
        -o "Dir::Etc::sourcelist=$PWD/next/next.sources" -o Dir::Etc::sourceparts=/dev/null)
    apt-get -qq "${options[@]}" update
    (cd next && apt-get -qq "${options[@]}" download "restic/$next_release" && dpkg -x restic_*.deb unpacked)
}
if newer_restic >/dev/null 2>&1; then restic=$PWD/next/unpacked/usr/bin/restic; fi

in_venv() { # name, what pip is to install in each of its runs
    local name=$1
    shift
    [ -x "$name/bin/$name" ] && return
    python3 -m venv "$name"
    for packages in "$@"; do
        # shellcheck disable=SC2086 # several words are meant
        "$name/bin/pip" -q install $packages || { rm -rf "$name" && return 1; }
    done
}
in_venv borg 'borgbackup<2'
# What benji asks for is too old for today's pip to resolve; these versions work together.
in_venv benji '--no-deps benji' "PrettyTable<1 sqlalchemy<2 setproctitle<2 python-dateutil<3 alembic<2 ruamel.yaml==0.17.40 argcomplete<2 \
    sparsebitfield<1 cerberus<2 pycryptodome<4 pyparsing<3 semantic-version<3 dateparser<2 structlog colorama<1 diskcache psycopg2-binary \
    zstandard setuptools<81" || echo 'benji could not be installed; the others can be measured without it' >&2

printf 'export RESTIC=%s BORG=%s BENJI=%s\n' "$restic" "$PWD/borg/bin/borg" "$PWD/benji/bin/benji" >PEERS.env
"$restic" version
borg/bin/borg --version
echo "now: . $PWD/PEERS.env"
