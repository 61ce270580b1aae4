#!/bin/sh
# Installs the binaries of a directory as systemd services, or brings what is installed up to date. It shows each change,
# and makes none that is made already. Settings and data are never changed and never removed.
set -eu

PROGRAMS="producer processor admin local"
BINARIES=/opt/finnhub
SETTINGS=/etc/finnhub/env
UNITS=/etc/systemd/system
HERE=$(cd "$(dirname "$0")" && pwd)

usage() {
  echo "usage: sudo deploy/install.sh [DIRECTORY]      DIRECTORY holds the binaries and, the first time, your .env"
  echo "       sudo deploy/install.sh --uninstall      keeps $SETTINGS and the data below /var/lib"
}

fail() {
  echo "install.sh: $*" >&2
  exit 1
}

change() {
  echo "+ $*"
  "$@"
}

# Put beside it and renamed: whoever starts meanwhile gets the old file or the new one. Sets `placed` if it was another.
place() { # MODE FROM TO
  placed=""
  ! cmp -s "$2" "$3" || return 0
  change install -D -m "$1" "$2" "$3.new"
  change mv -f "$3.new" "$3"
  placed=yes
}

# Whatever is running, was started once, or starts with the machine.
services() {
  {
    systemctl list-units --all --plain --no-legend 'finnhub-*.service' | cut -d ' ' -f 1
    ls "$UNITS/multi-user.target.wants" 2>/dev/null | grep '^finnhub-' || true
  } | sort -u
}

uninstall() {
  for service in $(services); do change systemctl disable --now "$service"; done
  for unit in "$HERE"/systemd/finnhub-*.service; do
    [ ! -e "$UNITS/${unit##*/}" ] || change rm "$UNITS/${unit##*/}"
  done
  for program in $PROGRAMS; do
    [ ! -e "$BINARIES/$program" ] || change rm "$BINARIES/$program"
  done
  [ ! -d "$BINARIES" ] || change rmdir "$BINARIES"
  change systemctl daemon-reload
  # What had failed would be listed for ever.
  systemctl reset-failed 'finnhub-*' 2>/dev/null || true
  echo "kept: $SETTINGS and $(echo /var/lib/private/finnhub-*)"
}

install_all() { # DIRECTORY
  [ -e "$SETTINGS" ] || [ -e "$1/.env" ] ||
    fail "there is neither $SETTINGS nor $1/.env: copy sample.env there and put your values in"
  found="" changed="" reload=""
  for program in $PROGRAMS; do
    [ -f "$1/$program" ] || continue
    found="$found $program"
    place 755 "$1/$program" "$BINARIES/$program"
    [ -z "$placed" ] || changed="$changed $program"
    for unit in "$HERE/systemd/finnhub-$program"*.service; do
      place 644 "$unit" "$UNITS/${unit##*/}"
      [ -z "$placed" ] || changed="$changed $program" reload=yes
    done
  done
  [ -n "$found" ] || fail "no binary in $1: npm run build makes them in dist"
  [ -e "$SETTINGS" ] || place 600 "$1/.env" "$SETTINGS"
  [ -z "$reload" ] || change systemctl daemon-reload
  # A restart waits for engines that are away; nobody needs to wait for the restart.
  for program in $(echo "$changed" | tr ' ' '\n' | sort -u); do
    for service in $(services | grep "^finnhub-$program[@.]" || true); do
      change systemctl try-restart --no-block "$service"
    done
  done
  [ -n "$changed" ] || echo "nothing to change:$found"
}

case ${1:-.} in
  -h | --help) usage && exit ;;
  --uninstall | [!-]*) ;;
  *) usage >&2 && exit 1 ;;
esac
[ "$(id -u)" = 0 ] || fail "only root may install: sudo $0 $*"
command -v systemctl >/dev/null || fail "there is no systemd here"
if [ "${1:-.}" = --uninstall ]; then uninstall; else install_all "${1:-.}"; fi
