#!/usr/bin/env bash
# Set this clone up: Debian packages, uv, the locked Python environment. Idempotent, and done in a second when nothing
# is missing. With --lab it asks first whether a lab can stand on this machine. With --python it builds the environment
# alone, which needs neither root nor Debian's packages.
set -euo pipefail
cd "$(dirname "$0")/.."

UV_VERSION=0.13.8
PYTHON_MINIMUM="(3, 12)"
PYTHON_BELOW="(3, 15)"

fail() {
  printf 'slipway: %s\n' "$*" >&2
  exit 1
}

say() {
  printf '\033[2mslipway: %s\033[0m\n' "$*"
}

# Said before anything is changed. The first questions need nothing but a shell; the others need Python's standard
# library, which every Debian but the barest has.
ask_machine() {
  [ "$(id -u)" -eq 0 ] || fail "You are user $(id -u): hosts and networks need root; run it again with sudo."
  [ "$(sed -n 's/^ID=//p' /etc/os-release)" = debian ] || fail "This machine is not a Debian 12 or 13: use such a machine, virtual or real."
  local available
  available=$(awk '/^MemAvailable:/ {print int($2 / 1000000)}' /proc/meminfo)
  [ -f /var/lib/slipway/lab/lab.json ] || [ "$available" -ge 10 ] || fail "Only $available GB of memory are available and 10 GB are needed: end other programs or use a larger machine."
  if [ -x /usr/bin/python3 ]; then
    /usr/bin/python3 -B lab/preflight.py || exit 1
  fi
}

missing_packages() {
  local name program
  while read -r name program; do
    [ -z "$program" ] || ! command -v "$program" >/dev/null || continue
    dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null | grep -qx installed || printf '%s\n' "$name"
  done < <(grep -v '^\s*\(#\|$\)' lab/apt-packages.txt)
}

install_packages() {
  local missing
  mapfile -t missing < <(missing_packages)
  [ ${#missing[@]} -gt 0 ] || return 0
  [ "$(id -u)" -eq 0 ] || fail "Debian packages are missing (${missing[*]}): run it again with sudo, or let somebody install them."
  say "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  local log
  log=$(mktemp)
  if ! { apt-get update && apt-get install --yes --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    fail "Debian packages could not be installed; the whole output is in $log."
  fi
  rm -f "$log"
}

suitable() { # suitable PYTHON: it runs and its version is one the project is made for
  "$1" -c "import sys, venv; sys.exit(not $PYTHON_MINIMUM <= sys.version_info[:2] < $PYTHON_BELOW)" 2>/dev/null
}

# A Python of the right version: the one already in use, one on PATH, one of pyenv's, Debian's. 3.13 first, that of the
# hosts: they run what it compiles. Prints nothing when there is none; uv then fetches one.
find_python() {
  local candidate pyenv=${PYENV_ROOT:-$HOME/.pyenv}/versions
  for candidate in .venv/bin/python python3.13 "$pyenv"/3.13*/bin/python3 python3.14 python3.12 python3 \
    "$pyenv"/3.1[24]*/bin/python3 /usr/bin/python3; do
    candidate=$(command -v "$candidate" 2>/dev/null) || continue
    if suitable "$candidate"; then
      "$candidate" -c 'import os, sys; print(os.path.realpath(sys.executable))'
      return 0
    fi
  done
}

find_uv() {
  if command -v uv >/dev/null; then
    command -v uv
    return 0
  fi
  if ! .tools/bin/uv --version 2>/dev/null | grep -q "^uv $UV_VERSION"; then
    say "installing uv $UV_VERSION into .tools" >&2
    local python=/usr/bin/python3
    [ -x "$python" ] || python=$(command -v python3) || fail "python3 is missing: install the packages python3 and python3-venv."
    "$python" -m venv --clear .tools >&2 || fail "A virtual environment could not be made: install the package python3-venv."
    .tools/bin/python -m pip install --quiet --disable-pip-version-check "uv==$UV_VERSION" >&2 ||
      fail "uv $UV_VERSION could not be installed from the Python package index: see above, then run it again."
  fi
  printf '%s\n' .tools/bin/uv
}

sync_environment() {
  local uv python
  # Trust what this machine trusts, its own authorities included.
  export UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS:-true}
  uv=$(find_uv)
  python=$(find_python)
  if [ -n "$python" ]; then
    export UV_PYTHON=$python
  else
    say "no Python 3.12 or later was found here: uv fetches one"
    export UV_PYTHON=3.13
  fi
  if "$uv" sync --locked --check --quiet 2>/dev/null; then
    return 0
  fi
  say "building the locked Python environment in .venv"
  "$uv" sync --locked || fail "The Python environment could not be built: see above, then run it again."
}

[ "${1:-}" != --lab ] || ask_machine
[ "${1:-}" = --python ] || install_packages
sync_environment
