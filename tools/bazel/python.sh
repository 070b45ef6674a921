#!/bin/sh
# The Python of build systems: INTACT_PYTHON, or that of the project's .venv. Bazel calls this file through links; the
# file itself stands beside .venv.
root=$(readlink -f "$(dirname "$(readlink -f "$0")")/../..")
python=${INTACT_PYTHON:-$root/.venv/bin/python}
if [ ! -x "$python" ]; then
  echo "error: no Python at $python. Make it: bash $root/tools/setup.sh, or set INTACT_PYTHON to one that has the" \
    "packages of $root/requirements.txt." >&2
  exit 1
fi
exec "$python" "$@"
