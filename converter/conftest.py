"""What all tests of this room begin with."""

from __future__ import annotations

import keras
import pytest


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Networks are the same in every run, as long as a test builds its layers itself: Keras draws their seeds then."""
    keras.utils.set_random_seed(0)
