#!/usr/bin/env bash
# Sets the project up, then runs its checks and its tests, layer by layer: a failing layer does not stop those after
# it, and any failing layer makes the whole fail. The tests that need the models of ../shared are skipped without it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash tools/setup.sh
bash tools/system_packages.sh

export TF_CPP_MIN_LOG_LEVEL=3 KERAS_BACKEND=tensorflow PYTHONHASHSEED=0 PYTHONUNBUFFERED=1
export OPENBLAS_NUM_THREADS=1 # two workers fill two cores
unset PYTHONDONTWRITEBYTECODE # hundreds of processes would compile every module again
export PATH="$PWD/.venv/bin:$PATH"
readonly PYTEST=(python -m pytest -q -n 2 --dist worksteal --durations=15)

summary=()
failed=0

# layer NAME COMMAND...: runs the command and keeps its outcome for the summary.
layer() {
  local name=$1 outcome=passed start=$SECONDS
  shift
  printf '\n== %s\n' "$name"
  "$@" || { outcome="FAILED (exit status $?)"; failed=$((failed + 1)); }
  summary+=("$(printf '%-44s %5d s   %s' "$name" $((SECONDS - start)) "$outcome")")
}

# skip NAME REASON: a layer that cannot run here.
skip() {
  printf '\n== %s\nskipped: %s\n' "$1" "$2"
  summary+=("$(printf '%-44s %5s     skipped: %s' "$1" - "$2")")
}

layer 'style: ruff' ruff check .
layer 'format: ruff' ruff format --check .
layer 'types of ir, passes and converter: mypy' mypy
layer 'arrows between the rooms: import-linter' lint-imports
if [ -f tools/docs.py ]; then
  layer 'documentation against the code' python -m tools.docs --check
fi
if command -v bazel >/dev/null; then
  layer 'Bazel builds the rooms' bazel --batch build //...
else
  skip 'Bazel builds the rooms' 'bazel is not installed'
fi
layer 'tests of ir and passes' "${PYTEST[@]}" ir passes
layer 'tests of converter, tools, runtime_tests' "${PYTEST[@]}" tools converter runtime_tests # pages first: they take minutes

printf '\n== summary\n'
printf '%s\n' "${summary[@]}"
if [ -d ../shared ]; then
  echo '../shared was there: its models and data were used.'
else
  echo '../shared was not there: the tests that need its models were skipped.'
fi
if [ "$failed" -gt 0 ]; then
  echo "$failed of ${#summary[@]} layers failed."
  exit 1
fi
echo 'All layers passed.'
