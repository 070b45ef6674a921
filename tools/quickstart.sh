#!/usr/bin/env bash
# Sets the project up and converts the shipped model, a MobileNetV2 that reads handwritten digits, for the Edge
# TPU.
# Further arguments go to `convert`, for example: bash tools/quickstart.sh --granularity=per_tensor
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash tools/setup.sh

export TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-3} KERAS_BACKEND=${KERAS_BACKEND:-tensorflow}
mkdir -p build
exec .venv/bin/convert \
  --model=converter/shipped/digits_mobilenet_v2.keras \
  --target=edgetpu \
  --preprocess=tf \
  --calibration_data=converter/shipped/digits_calibration.npz \
  --output=build/digits_mobilenet_v2_edgetpu.tflite \
  "$@"
