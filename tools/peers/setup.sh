#!/usr/bin/env bash
# Makes the environments of the other quantizers, one each, with the versions that docs/measurements.md names.
# Usage: bash tools/peers/setup.sh FOLDER   (Python 3.11 as python3.11 or in $PYTHON; 3 GB of disk)
set -euo pipefail

folder=${1:?"usage: bash tools/peers/setup.sh FOLDER"}
python=${PYTHON:-python3.11}

"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || {
  echo "error: expected Python 3.11 (TensorFlow 2.15 has no wheels above it); found $("$python" --version); set PYTHON" >&2
  exit 1
}

make_environment() {
  local name=$1
  shift
  "$python" -m venv "$folder/$name"
  "$folder/$name/bin/pip" install --quiet --disable-pip-version-check "$@"
  echo "--peer_python $name=$folder/$name/bin/python"
}

# Its own requirement is TensorFlow's float file, which the benchmark writes; NumPy 2 comes with it.
make_environment litert_quantizer litert-quantizer==0.11.0
# 2.3.0 works with TensorFlow 2.15, which in turn requires NumPy 1.
make_environment mct model-compression-toolkit==2.3.0 tensorflow-cpu==2.15.1 "numpy<2"
