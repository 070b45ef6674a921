#!/bin/sh
# The Python of build systems: INTACT_PYTHON, or that of the project's .venv, or of the environment it is installed in. Bazel calls this file through links; the
# file itself stands beside .venv.
root=$(readlink -f "$(dirname "$(readlink -f "$0")")/../..")
python=${INTACT_PYTHON:-$root/.venv/bin/python}
installed=$root/../../../../bin/python  # as site-packages/intact
[ -n "$INTACT_PYTHON" ] || [ -x "$python" ] || [ ! -x "$installed" ] || python=$installed
if [ ! -x "$python" ]; then
  echo "error: no Python at $python. Make it: bash $root/tools/setup.sh, or set INTACT_PYTHON to one that has the" \
    "packages of $root/requirements.txt." >&2
  exit 1
fi
exec "$python" "$@"
