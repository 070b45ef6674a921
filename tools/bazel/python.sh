#!/bin/sh
# The Python of the project's .venv, for Bazel. Bazel calls this file through links; it stands beside .venv.
python=$(dirname "$(readlink -f "$0")")/../../.venv/bin/python
if [ ! -x "$python" ]; then
  echo "No .venv at the root of the repository. Make it: bash tools/setup.sh" >&2
  exit 1
fi
exec "$python" "$@"
