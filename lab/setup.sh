#!/usr/bin/env bash
# Set up this clone: Debian packages, uv, the locked Python environment. Idempotent; takes a second when nothing is
# missing. With --lab it first checks whether this machine can run a lab. With --python it builds only the Python
# environment, which requires neither root nor Debian packages.
set -euo pipefail
cd "$(dirname "$0")/.."

UV_VERSION=0.13.8
PYTHON_MINIMUM="(3, 12)"
PYTHON_BELOW="(3, 15)"

fail() {
  printf 'slipway: %s\n' "$*" >&2
  exit 1
}

info() {
  printf '\033[2mslipway: %s\033[0m\n' "$*"
}

# Checked before anything is changed. The first checks require only a shell, the others Python's standard library, which
# only a minimal Debian lacks.
check_machine() {
  [ "$(id -u)" -eq 0 ] || fail "User $(id -u): creating hosts and networks requires root. Repeat with sudo."
  [ "$(sed -n 's/^ID=//p' /etc/os-release)" = debian ] || fail "Operating system: not Debian. Use Debian 12 or 13, virtual or real."
  local available
  available=$(awk '/^MemAvailable:/ {print int($2 / 1000000)}' /proc/meminfo)
  [ -f /var/lib/slipway/lab/lab.json ] || [ "$available" -ge 10 ] || fail "Memory: $available GB are available, 10 GB are required. Stop other programs or use a larger machine."
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
  [ "$(id -u)" -eq 0 ] || fail "Debian packages: missing ${missing[*]}. Repeat with sudo, or have them installed."
  info "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  local log
  log=$(mktemp)
  if ! { apt-get update && apt-get install --yes --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    fail "Debian packages: installation failed. Read the whole output in $log."
  fi
  rm -f "$log"
}

suitable() { # suitable PYTHON: it runs and its version is supported
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
    info "installing uv $UV_VERSION into .tools" >&2
    local python=/usr/bin/python3
    [ -x "$python" ] || python=$(command -v python3) || fail "python3: not found. Install the packages python3 and python3-venv."
    "$python" -m venv --clear .tools >&2 || fail ".tools: creating the virtual environment failed. Install the package python3-venv."
    .tools/bin/python -m pip install --quiet --disable-pip-version-check "uv==$UV_VERSION" >&2 ||
      fail "uv $UV_VERSION: installation from the Python package index failed. Repeat after removing the cause above."
  fi
  printf '%s\n' .tools/bin/uv
}

sync_environment() {
  local uv python
  # Use the CA certificates of this machine, including its own.
  export UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS:-true}
  uv=$(find_uv)
  python=$(find_python)
  if [ -n "$python" ]; then
    export UV_PYTHON=$python
  else
    info "no Python 3.12 or later found: uv downloads one"
    export UV_PYTHON=3.13
  fi
  if "$uv" sync --locked --check --quiet 2>/dev/null; then
    return 0
  fi
  info "building the locked Python environment in .venv"
  "$uv" sync --locked || fail ".venv: building the Python environment failed. Repeat after removing the cause above."
}

[ "${1:-}" != --lab ] || check_machine
[ "${1:-}" = --python ] || install_packages
sync_environment
