"""Reads a digit with a model that an app ships, as an app would: with an interpreter and without Intact.

python classify.py MODEL.tflite IMAGE
"""

from __future__ import annotations

import sys

import numpy as np
from PIL import Image

try:
    from tflite_runtime.interpreter import Interpreter
except ImportError:  # Python 3.12 has its successor only
    from ai_edge_litert.interpreter import Interpreter


def classify(model: str, image: str) -> tuple[int, float]:
    """The digit on an image and the model's share for it."""
    interpreter = Interpreter(model)
    interpreter.allocate_tensors()
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    pixels = np.asarray(Image.open(image).convert("RGB"), np.float32)
    scale, zero_point = source["quantization"]
    levels = np.round((pixels / 127.5 - 1) / scale) + zero_point
    interpreter.set_tensor(source["index"], np.clip(levels, -128, 127).astype(np.int8)[None])
    interpreter.invoke()
    scores = interpreter.get_tensor(result["index"])[0]
    scale, zero_point = result["quantization"]
    return int(scores.argmax()), float((int(scores.max()) - zero_point) * scale)


if __name__ == "__main__":
    digit, share = classify(*sys.argv[1:])
    print(f"digit {digit}, {share:.1%}")
