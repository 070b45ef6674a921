"""Good and bad models and data for tests of `convert`, and arguments that work."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
from keras import layers

import converter
from tools._runs_testing import ROOT

SHIPPED = ROOT / "converter" / "shipped"
X = np.random.default_rng(0).uniform(-1, 1, (12, 8, 8, 3)).astype(np.float32)


class Unknown(layers.Layer):
    """A layer that the frontend has never heard of."""

    def call(self, x):
        return keras.ops.erf(x)


def small(*more: layers.Layer, shape: tuple[int | None, ...] = (8, 8, 3)) -> keras.Model:
    x = keras.Input(shape, name="image")
    y = layers.Conv2D(4, 3, activation="relu", name="first")(x)
    for layer in more:
        y = layer(y)
    return keras.Model(x, layers.Dense(3, name="classes")(layers.GlobalAveragePooling2D()(y)))


def fill(here: Path) -> Path:
    """Good and bad models and data, in a folder."""
    keras.utils.set_random_seed(0)
    model = small()
    model.save(here / "good.keras")
    kernel = model.get_layer("first").kernel
    kernel.assign(keras.ops.where(kernel > 0.2, float("nan"), kernel))
    model.save(here / "nan.keras")
    small(Unknown(name="odd one")).save(here / "unknown.keras")
    small(shape=(None, None, 3)).save(here / "dynamic.keras")
    (here / "cut.keras").write_bytes((here / "good.keras").read_bytes()[:2000])
    (here / "text.h5").write_text("no model")
    (here / "first.json").write_text('[{"layer": "fir*", "weight_bits": 6}]')
    (here / "typo.json").write_text('[{"layer": "fisrt", "weight_bits": 4}]')
    (here / "folder").mkdir()
    (here / "broken").mkdir()
    (here / "broken" / "picture.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    np.save(here / "x.npy", X)
    np.save(here / "far.npy", X * 3000)
    np.save(here / "pixels.npy", ((X + 1) * 127.5).astype(np.uint8))
    np.save(here / "wide.npy", X[:, :, :6])
    converter.convert(small(), calibration_data=[X], pipeline="fast", check=False, output=here / "integer.tflite")
    return here


GOOD = ("--model", "good.keras", "--calibration_data", "x.npy", "--pipeline", "fast", "--output", "out.tflite")


def instead(flag: str, value: str) -> tuple[str, ...]:
    """The good arguments with another value of a flag."""
    listed = list(GOOD)
    if flag in listed:
        listed[listed.index(flag) + 1] = value
        return tuple(listed)
    return (*GOOD, flag, value)
