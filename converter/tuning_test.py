"""What a conversion that trains leaves in its file."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np

from converter.conversion import convert
from converter.tuning import Tuning


def test_a_resumed_conversion_writes_the_same_file_which_tells_no_places(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Conv2D(8, 3, activation="relu"), keras.layers.GlobalAveragePooling2D()]
    model = keras.Sequential([keras.Input((12, 12, 3)), *layers, keras.layers.Dense(4)])
    x = np.random.default_rng(0).normal(size=(32, 12, 12, 3)).astype(np.float32)

    def converted(**options: object) -> bytes:
        tuning = Tuning(options={"epochs": 1, "checkpoint_dir": str(tmp_path), **options})
        return convert(model, calibration_data=[x], pipeline="fat", tuning=tuning, prove=False, check=False).model

    first = converted()
    assert converted(resume=True) == first
    assert str(tmp_path).encode() not in first and b"resume" not in first
