#!/usr/bin/env bash
# Quick checks while working: style, format, types, arrows, and the tests in the folders of what changed since the
# last commit. tools/test.sh runs everything.
#
#     bash tools/check.sh                    the folders of files that differ from HEAD
#     bash tools/check.sh passes/channels    the tests of these folders or files
#     bash tools/check.sh passes             a whole room: without the tests that train networks
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PWD/.venv/bin:$PATH" TF_CPP_MIN_LOG_LEVEL=3 KERAS_BACKEND=tensorflow PYTHONHASHSEED=0
export OPENBLAS_NUM_THREADS=1 # two workers fill two cores

if [ $# -eq 0 ]; then
  mapfile -t changed < <({ git diff --name-only HEAD; git ls-files --others --exclude-standard; } | grep '\.py$' | xargs -r dirname | sort -u)
  set -- "${changed[@]}"
fi
selection=()
for path in "$@"; do
  [[ "${path%/}" != */* ]] && selection=(-m 'not trains')
done

ruff check --quiet .
ruff format --check --quiet .
mypy
lint-imports >/dev/null || lint-imports
[ $# -eq 0 ] || python -m pytest -q -n 2 --dist worksteal "${selection[@]}" "$@"
