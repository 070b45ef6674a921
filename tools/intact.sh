#!/bin/sh
# `convert` of this checkout, or of this installed package, for build systems, with the same flags: tools/intact.bzl, intact.gradle and intact.cmake
# call it. Python is that of tools/bazel/python.sh. What the user has set for Python and Keras elsewhere changes nothing.
here=$(dirname "$0")
unset PYTHONPATH PYTHONHOME
unset KERAS_BACKEND
export PYTHONHASHSEED=0 TF_CPP_MIN_LOG_LEVEL=3
KERAS_HOME=$(mktemp -d) || exit 1
export KERAS_HOME
trap 'rm -rf "$KERAS_HOME"' EXIT
root=$here/..  # in the repository
[ -d "$root/intact" ] || root=$here/../..  # installed
# Not `-m`: it would look for modules in the current folder, which is the app's, first.
"$here/bazel/python.sh" -c '
import sys
sys.path[:] = [sys.argv.pop(1), *filter(None, sys.path)]
from intact.tools.convert import run
run()' "$root" "$@"
