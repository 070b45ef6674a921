#!/usr/bin/env bash
# Sets the project up in .venv at the root of the repository: an environment with the pinned packages of
# requirements.txt, and the project's own commands (.venv/bin/convert and so on). Needs only Python 3.10 to
# 3.12 with its venv module. Does nothing when all is in place; takes some minutes and about 2.5 GB otherwise.
#
#     bash tools/setup.sh                     the first Python found that fits
#     PYTHON=/path/to/python bash tools/setup.sh      that one, where .venv is made anew
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly VENV="$PWD/.venv"
readonly STAMP="$VENV/set-up.stamp"

say() { printf 'set-up: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

fits() { "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' 2>/dev/null; }

# Prints the Python to use.
find_python() {
  local candidate
  if [ -n "${PYTHON:-}" ]; then
    fits "$PYTHON" || die "PYTHON=$PYTHON is not Python 3.10 to 3.12."
    echo "$PYTHON"
    return
  fi
  for candidate in python3.11 python3.12 python3.10 python3; do
    if fits "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  die "Expected Python 3.10 to 3.12 on the PATH, found none. Debian 12: apt-get install python3 python3-venv"
}

# Sees to it that the Python $1 can make environments; Debian has that in a package of its own.
ensure_venv_module() {
  local python=$1 package
  "$python" -c 'import ensurepip, venv' 2>/dev/null && return
  package="python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing $package"
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -y -qq "$package" >&2 ||
      { apt-get update -qq >&2 && apt-get install -y -qq "$package" >&2; } || true
  fi
  "$python" -c 'import ensurepip, venv' 2>/dev/null ||
    die "$python has no venv module. Install it, as root: apt-get install $package"
}

# What is installed into the environment.
contents() { cat requirements.txt pyproject.toml | sha256sum | cut -d' ' -f1; }

# An environment made here: its commands name the folder, so one that was moved or copied is made anew.
is_usable() { fits "$VENV/bin/python" && [ "$(head -n 1 "$STAMP" 2>/dev/null)" = "$PWD" ]; }

make_environment() {
  local python
  python=$(find_python)
  ensure_venv_module "$python"
  say "making .venv with $("$python" --version)"
  rm -rf "$VENV"
  "$python" -m venv "$VENV"
  echo "$PWD" > "$STAMP"
}

main() {
  local expected
  expected=$(contents)
  is_usable || make_environment
  [ "$(sed -n 2p "$STAMP")" = "$expected" ] && return
  say "installing the pinned packages into .venv (some minutes the first time)"
  local pip=("$VENV/bin/python" -m pip --disable-pip-version-check --quiet)
  "${pip[@]}" install --progress-bar off --no-compile -r requirements.txt
  # pip compiles modules one after the other; what is not in this Python's grammar (templates) stays as it is.
  "$VENV/bin/python" -m compileall -qq -j 0 "$VENV/lib" || true
  "${pip[@]}" install --no-deps --no-build-isolation --editable .
  "${pip[@]}" check
  printf '%s\n%s\n' "$PWD" "$expected" > "$STAMP"
  say "done; the commands are in .venv/bin"
}

main
