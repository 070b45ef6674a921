"""Networks whose tensors are of very different size convert to files that every runtime runs (the conversion proves it)."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from converter.conversion import convert
from ir.types import DType


@pytest.mark.parametrize("bits", [8, 16])
def test_a_layer_normalization_over_one_channel(bits: int) -> None:
    """Nothing is left of a channel that its own mean is taken off: all that comes out is `beta`."""
    keras.utils.set_random_seed(0)
    x = keras.Input((20, 1))
    model = keras.Model(x, layers.Dense(4)(layers.LayerNormalization(epsilon=1e-6)(x)))
    model.layers[1].set_weights([np.float32([1.3]), np.float32([0.7])])
    data = np.random.default_rng(0).normal(size=(48, 20, 1)).astype(np.float32)
    result = convert(model, calibration_data=data, pipeline="fast", activation_bits=bits)
    assert result.quality is not None and result.quality.sqnr_db > 35  # one number, rounded to 8 bits, times weights
    assert any("is the same for every sample" in warning for warning in result.warnings)


@pytest.mark.parametrize("pipeline", ["fast", "default"])
def test_a_table_of_columns_of_very_different_size(pipeline: str) -> None:
    """Sizes of 0.01 to 1000 in one input of 8 bits gave -8 dB, and a file that XNNPACK did not load."""
    rng = np.random.default_rng(0)
    normal = rng.normal(size=(300, 6))
    data = (normal * [1, 1000, 0.01, 50, 5, 0.3] + [0, 5000, 1, -30, 2, 0]).astype(np.float32)
    keras.utils.set_random_seed(0)
    normalization = layers.Normalization()
    normalization.adapt(data)
    body = [layers.Dense(32, activation="relu"), layers.Dense(3)]
    model = keras.Sequential([keras.Input((6,)), normalization, *body])
    result = convert(model, calibration_data=data[:150], test_data=data[150:], pipeline=pipeline)
    assert result.graph.inputs[0].dtype is DType.INT32 and not result.float_operators
    # the same network on columns of one size gives 29 to 32 dB
    assert result.quality is not None and result.quality.sqnr_db > 26
