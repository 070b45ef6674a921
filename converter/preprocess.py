"""From pixels to a network's input: the modes of `keras.applications`, and the range of values each gives.

With x a pixel value in 0..255 and channels last, as RGB:

  none   x                              networks that hold their own rescaling
  unit   x / 255
  tf     x / 127.5 - 1
  torch  (x / 255 - mean) / std         mean and std of ImageNet's RGB channels
  caffe  x[BGR] - mean                  mean of ImageNet's BGR channels, in 0..255

`tf`, `torch` and `caffe` are bit for bit `keras.applications.imagenet_utils.preprocess_input` in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ir.errors import OptionError

_TORCH_MEAN, _TORCH_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)


@dataclass(frozen=True, kw_only=True)
class UsualRange:
    """The values that a preprocessing mode gives for pixels of 0 and 255."""

    low: float
    high: float

    @property
    def width(self) -> float:
        return self.high - self.low


USUAL_RANGE: dict[str, UsualRange] = {
    "none": UsualRange(low=0.0, high=255.0),
    "unit": UsualRange(low=0.0, high=1.0),
    "tf": UsualRange(low=-1.0, high=1.0),
    "torch": UsualRange(low=-_TORCH_MEAN[0] / _TORCH_STD[0], high=(1.0 - _TORCH_MEAN[2]) / _TORCH_STD[2]),
    "caffe": UsualRange(low=-max(_CAFFE_MEAN_BGR), high=255.0 - min(_CAFFE_MEAN_BGR)),
}
MODES: tuple[str, ...] = tuple(USUAL_RANGE)

_OUTSIDE = 0.25  # of the usual width: beyond either end by more than this is "far outside"
_NARROW = 0.05  # of the usual width: values that all lie in less were likely scaled twice


Preprocess = str | Callable[[np.ndarray], np.ndarray]  # a mode, or what makes an input of pixels `[samples, ...]`


def preprocess_name(preprocess: Preprocess) -> str:
    """A mode, or the name of a function."""
    return preprocess if isinstance(preprocess, str) else f"{getattr(preprocess, '__name__', 'function')}()"


def usual_range(preprocess: Preprocess) -> UsualRange | None:
    """The values that pixels of 0 and 255 become, None where that is not known."""
    return USUAL_RANGE.get(preprocess) if isinstance(preprocess, str) else None


def check_mode(mode: Preprocess) -> Preprocess:
    """Returns `mode`; raises OptionError where no mode has that name."""
    if not callable(mode) and mode not in USUAL_RANGE:
        raise OptionError(
            expected=f"one of {', '.join(MODES)}",
            found=repr(mode),
            where="preprocess",
            fix="name one of these; in Python a function of pixels will do, too",
        )
    return mode


def apply_mode(values: np.ndarray, mode: Preprocess) -> np.ndarray:
    """Preprocesses pixel values.

    Args:
      values: [..., channels], of any real type; never changed in place.
      mode: one of `MODES`, or a function of `[samples, ...]` that gives the same shape.

    Returns:
      float32 of the same shape.

    Raises:
      OptionError: an unknown mode, `torch` or `caffe` on other than 3 channels, or a function that gives other shapes.
    """
    check_mode(mode)
    if callable(mode):
        return _by_function(values, mode)
    if mode in ("torch", "caffe") and (values.ndim == 0 or values.shape[-1] != 3):
        channels = values.shape[-1] if values.ndim else 0
        raise OptionError(
            expected="3 colour channels (RGB) as the last axis",
            found=f"{channels}",
            where=f"preprocess '{mode}'",
            fix="choose 'tf', 'unit' or 'none' for such an input",
        )
    x = values.astype(np.float32)
    if mode == "unit":
        x /= np.float32(255.0)
    elif mode == "tf":
        x /= np.float32(127.5)
        x -= np.float32(1.0)
    elif mode == "torch":
        x /= np.float32(255.0)
        x -= np.asarray(_TORCH_MEAN, np.float32)
        x /= np.asarray(_TORCH_STD, np.float32)
    elif mode == "caffe":
        x = x[..., ::-1] - np.asarray(_CAFFE_MEAN_BGR, np.float32)
    return x


def _by_function(values: np.ndarray, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    result = np.asarray(function(values.copy()))
    if result.shape != values.shape or result.dtype.kind not in "fiub":
        raise OptionError(
            expected=f"numbers of shape {list(values.shape)}, as it was given",
            found=f"{result.dtype} of shape {list(result.shape)}",
            where=f"preprocess={preprocess_name(function)}",
            fix="let it take and give a batch [samples, height, width, channels]; sizes are the network's already",
        )
    return result.astype(np.float32)


def check_pixels(batch: Sequence[np.ndarray]) -> str | None:
    """A warning where images reach a network as pixels of 0 to 255, without an option that says so.

    Args:
      batch: one array per input. Floats of rank 4, with the channels of an image, from 0 to between 32 and 255 count
        as pixels.
    """
    images = [a for a in batch if a.ndim == 4 and a.shape[-1] in (1, 3) and np.issubdtype(a.dtype, np.floating)]
    if not any(a.size and a.min() >= 0 and 32 < a.max() <= 255 for a in images):
        return None
    return (
        "the network was given pixels of 0 to 255; if it was trained on other values, pass --preprocess (unit: 0 to 1, "
        "tf: -1 to 1, torch, caffe), and if on these, --preprocess none."
    )


def check_range(batch: np.ndarray | Sequence[np.ndarray], preprocess: Preprocess | None) -> str | None:
    """A warning where values cannot be what the network's preprocessing gives, or None where they can.

    Looks at the float inputs of rank 4 (images), or at every float input where none has that rank. Warns of
    values far outside the usual range (by more than a quarter of its width) and of values that all lie in
    less than a twentieth of it (preprocessed twice, or 0..1 fed to a network that expects 0..255). A part of
    the range, such as 0..1 for a network of -1..1, is no reason to warn.

    Args:
      batch: one array per input, or the array of the only one; as the network would be fed.
      preprocess: the mode that the network was trained with, or None where that is not known (never warns).
    """
    usual = None if preprocess is None else usual_range(check_mode(preprocess))
    if usual is None:
        return None
    arrays = [batch] if isinstance(batch, np.ndarray) else list(batch)
    floats = [a for a in arrays if a.size and np.issubdtype(a.dtype, np.floating)]
    images = [a for a in floats if a.ndim == 4] or floats
    if not images:
        return None
    low = min(float(a.min()) for a in images)
    high = max(float(a.max()) for a in images)
    margin = _OUTSIDE * usual.width
    outside = low < usual.low - margin or high > usual.high + margin
    if not outside and high - low >= _NARROW * usual.width:
        return None
    return (
        f"the data's values run from {low:.4g} to {high:.4g}, but this network's preprocessing "
        f"'{preprocess}' gives {usual.low:.4g} to {usual.high:.4g}; check that the data is preprocessed "
        "once, in that way."
    )
