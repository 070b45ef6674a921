"""Networks whose tensors are of very different size convert to files that every runtime runs (the conversion proves it)."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from converter.conversion import convert


@pytest.mark.parametrize("bits", [8, 16])
def test_a_layer_normalization_over_one_channel(bits: int) -> None:
    """Nothing is left of a channel that its own mean is taken off: all that comes out is `beta`."""
    x = keras.Input((20, 1))
    model = keras.Model(x, layers.Dense(4)(layers.LayerNormalization(epsilon=1e-6)(x)))
    model.layers[1].set_weights([np.float32([1.3]), np.float32([0.7])])
    data = np.random.default_rng(0).normal(size=(48, 20, 1)).astype(np.float32)
    result = convert(model, calibration_data=data, pipeline="fast", activation_bits=bits)
    assert result.quality is not None and result.quality.sqnr_db > 35  # one number, rounded to 8 bits, times weights
    assert any("is the same for every sample" in warning for warning in result.warnings)
