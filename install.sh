#!/bin/sh
# Installs Stockade from a directory that `make dist` filled, or changes nothing: every file is checked against
# SHA256SUMS, copied beside its place, checked again there, and put into place by a rename. Run again, it does nothing
# that is done already.
#
#   ./install.sh                    into /usr/local as root, else into ~/.local
#   ./install.sh --from DIR         from another directory than ./target/dist, or the one this script lies in
#   ./install.sh --prefix DIR       to another place
#   ./install.sh --systemd          the unit stockade@.service too, and the user that it runs as (root)
#   ./install.sh --expect HASH      SHA256SUMS itself must have this SHA-256: where the directory came over a network
#   ./install.sh --uninstall        removes what it installed; policies, logs and the user stay
set -eu
umask 022

say() { printf 'stockade: %s\n' "$*"; }
fail() {
    printf 'install.sh: %s\nnothing was changed\n' "$*" >&2
    exit 1
}

from='' prefix='' systemd=no uninstall=no expect='' unit_dir=${STOCKADE_UNIT_DIR:-/etc/systemd/system}
while [ $# -gt 0 ]; do
    case $1 in
    --from | --prefix | --expect)
        [ $# -ge 2 ] || fail "$1 needs a value"
        case $1 in --from) from=$2 ;; --prefix) prefix=$2 ;; --expect) expect=$2 ;; esac
        shift 2
        ;;
    --systemd) systemd=yes && shift ;;
    --uninstall) uninstall=yes && shift ;;
    -h | --help)
        sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p;}' "$0"
        exit 0
        ;;
    *) fail "unknown option $1 (see --help)" ;;
    esac
done

root=no
[ "$(id -u)" != 0 ] || root=yes
if [ -z "$prefix" ]; then
    if [ $root = yes ]; then
        prefix=/usr/local
    else
        prefix=${HOME:?HOME is not set: name a place with --prefix}/.local
    fi
fi
case $prefix in /*) ;; *) fail "--prefix $prefix is not an absolute path" ;; esac
[ $systemd = no ] || [ $root = yes ] || [ -n "${STOCKADE_UNIT_DIR:-}" ] || fail "--systemd needs root"

program=$prefix/bin/stockade
unit=$unit_dir/stockade@.service

if [ $uninstall = yes ]; then
    for file in "$program" "$unit"; do
        if [ -f "$file" ]; then
            rm -- "$file" || exit 1
            say "removed $file"
        fi
    done
    exit 0
fi

[ "$(uname -s)" = Linux ] || fail "Stockade runs on Linux, and this is $(uname -s)"
command -v sha256sum >/dev/null || fail "sha256sum is needed to check what is installed"
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
if [ -z "$from" ]; then
    from=$here/target/dist
    [ ! -f "$here/SHA256SUMS" ] || from=$here
fi
[ -f "$from/SHA256SUMS" ] || fail "$from has no SHA256SUMS: run \`make dist\` first, or name a directory with --from"

sum() { sha256sum <"$1" | cut -d ' ' -f 1; }

if [ -n "$expect" ] && [ "$(sum "$from/SHA256SUMS")" != "$expect" ]; then
    fail "$from/SHA256SUMS is not the file whose SHA-256 is $expect"
fi

# The hash that SHA256SUMS has for a file; the file must be there, and no link to another.
expected() {
    hash=$(awk -v name="$1" '($2 == name || $2 == "*" name) && NF == 2 {print $1}' "$from/SHA256SUMS")
    case $hash in
    '') fail "$from/SHA256SUMS does not list $1" ;;
    *[!0-9a-f]*) fail "$from/SHA256SUMS has no single SHA-256 for $1" ;;
    esac
    [ ${#hash} = 64 ] || fail "$from/SHA256SUMS has no SHA-256 for $1"
    [ -f "$from/$1" ] && [ ! -L "$from/$1" ] || fail "$from/$1 is missing, or no regular file"
    [ "$(sum "$from/$1")" = "$hash" ] || fail "$from/$1 is not what SHA256SUMS says: it was damaged or changed"
    printf '%s' "$hash"
}

# Everything is checked before anything is copied.
wanted=$(expected stockade) || exit 1
if [ $systemd = yes ]; then
    wanted_unit=$(expected stockade@.service) || exit 1
fi

# put FILE HASH MODE TARGET
put() {
    if [ -f "$4" ] && [ ! -L "$4" ] && [ "$(sum "$4")" = "$2" ] && [ "$(stat -c %a "$4")" = "$3" ]; then
        say "$4 is there already"
        return
    fi
    mkdir -p -- "$(dirname -- "$4")" || fail "cannot make $(dirname -- "$4")"
    fresh=$(mktemp -- "$4.XXXXXX") || fail "cannot write beside $4"
    trap 'rm -f -- "$fresh"' EXIT
    cp -- "$from/$1" "$fresh" && chmod "$3" "$fresh" || fail "cannot write $fresh"
    # What was copied is what was checked, whoever writes in $from meanwhile.
    [ "$(sum "$fresh")" = "$2" ] || fail "$from/$1 changed while it was copied"
    if [ "$1" = stockade ]; then
        "$fresh" --version >/dev/null 2>&1 || fail "$from/$1 does not run on this machine ($(uname -m))"
    fi
    mv -f -- "$fresh" "$4" || fail "cannot put $4 into place"
    trap - EXIT
    say "installed $4"
}

put stockade "$wanted" 755 "$program"
if [ $systemd = yes ]; then
    put stockade@.service "$wanted_unit" 644 "$unit"
    if [ $root = yes ] && [ -z "${STOCKADE_UNIT_DIR:-}" ] && ! getent passwd stockade >/dev/null; then
        if ! printf 'u stockade - "Agents behind Stockade" /var/lib/stockade\n' | systemd-sysusers -; then
            say "the user \`stockade\` could not be made: make it before the unit is started"
            exit 1
        fi
        say "made the user \`stockade\`"
    fi
    [ "$program" = /usr/local/bin/stockade ] || say "the unit runs /usr/local/bin/stockade, not $program: systemctl edit it"
    if [ -d /run/systemd/system ]; then
        systemctl daemon-reload
    fi
fi

case ":${PATH:-}:" in
*":$prefix/bin:"*) ;;
*) say "add $prefix/bin to PATH" ;;
esac
say "\`$program doctor\` shows what this machine can enforce"
