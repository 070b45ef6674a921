"""Networks by name: those of `keras.applications`, and the ones that come with this package.

The classification networks are found by looking at `keras.applications`; names are its class names in snake
case (`mobilenet_v2`, `efficientnet_b0`, `nasnet_mobile`), and other spellings of them (`MobileNetV2`) are
understood. The preprocessing of each is found by trying its `preprocess_input` on a few pixels. A network
that comes with the package is described by a JSON file in `shipped/` with the keys `file` (a .keras file
beside it), `preprocess` and, if there are any, `data` (names and files of samples) and `classes`.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import json
import os
import random
import re
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converter.keras_file import first_words, load_keras
from converter.preprocess import apply_mode, check_mode
from converter.zoo_weights import check_weights_path, with_weights
from ir.errors import ModelError, OptionError

if TYPE_CHECKING:
    import keras

_SHIPPED = Path(__file__).parent / "shipped"
IMAGENET, RANDOM = "imagenet", "random"
_DOWNLOAD_TIMEOUT_S = 30.0
_UNSTATED_SIZE = 224  # of MobileNetV3, which Keras builds for any size where none is asked for
_WORDS = r"Inception|Xception|VGG\d+|[A-Z][A-Za-z]*?Ne(?:Xt|t)\d*|V\d|B\d|[A-Z]+[a-z]*\d*"


@dataclass(frozen=True, kw_only=True)
class ZooModel:
    """A network of the zoo, ready to convert.

    `input_size` is (height, width). `weights` says where they are from: "imagenet", a path, "shipped" or
    "random". `data` holds samples that come with the network, as paths for `open_data`, by "calibration" and
    "test".
    """

    name: str
    model: keras.Model
    preprocess: str
    input_size: tuple[int, int]
    weights: str
    data: Mapping[str, str] = field(default_factory=dict)
    classes: tuple[str, ...] = ()


def zoo_names() -> list[str]:
    """The names of all networks, sorted."""
    return sorted([*_constructors(), *_shipped_files()])


def zoo_preprocess(name: str) -> str:
    """The preprocessing mode of a network, without building it; raises OptionError for an unknown name."""
    name = _known_name(name)
    if name in _shipped_files():
        return _shipped_facts(name)["preprocess"]
    return _preprocess_of(_constructors()[name])


def load_zoo(
    name: str,
    weights: str | Path | None = None,
    *,
    alpha: float | None = None,
    input_size: int | tuple[int, int] | None = None,
    classes: int | None = None,
    minimalistic: bool | None = None,
    seed: int = 0,
) -> ZooModel:
    """Builds a network of the zoo, with softmax at its end.

    Args:
      name: one of `zoo_names()`, in any spelling.
      weights: "imagenet" (downloaded by Keras, or from its cache), a file (.weights.h5, .h5, .keras), or "random".
        A .keras file is taken as the network, after a check that it is the one named. By default ImageNet's, which
        is what a name means; for a network that comes with the package its own.
      alpha: the width multiplier of MobileNets.
      input_size: a side, or (height, width); the network's own by default.
      classes: how many; 1000 by default.
      minimalistic: of MobileNetV3: without squeeze-and-excite and hard swish.
      seed: of random weights.

    Raises:
      OptionError: an unknown name, or an option that this network does not take.
      ModelError: the weights cannot be downloaded, are not there, or are not this network's.
    """
    name = _known_name(name)
    size = (input_size, input_size) if isinstance(input_size, int) else input_size
    asked: dict[str, Any] = {
        "alpha": alpha,
        "input_shape": None if size is None else (*size, 3),
        "classes": classes,
        "minimalistic": minimalistic,
    }
    options = {key: value for key, value in asked.items() if value is not None}
    if name in _shipped_files():
        if weights is not None or options:
            raise OptionError(
                expected="no weights and no options (they come with the network)",
                found=_listed({**({"weights": weights} if weights else {}), **options}),
                where=name,
                fix="leave them out",
            )
        return _load_shipped(name)
    build = _constructors()[name]
    _check_options(name, build, options)
    weights = IMAGENET if weights is None else str(weights)
    if weights in (IMAGENET, RANDOM):
        model = _build(name, build, options, seed, IMAGENET if weights == IMAGENET else None)
    else:
        path = check_weights_path(Path(weights).expanduser())
        what = f"{name} with {_listed(options)}" if options else name
        model = with_weights(_build(name, build, options, seed, None), path, what)
    return ZooModel(
        name=name,
        model=model,
        preprocess=_preprocess_of(build),
        input_size=_input_size(model),
        weights=weights,
    )


@functools.cache
def _constructors() -> dict[str, Callable[..., Any]]:
    """The networks of `keras.applications` by our names: its functions that can have a classifier on top."""
    from keras import applications

    functions = inspect.getmembers(applications, inspect.isfunction)
    return {
        _snake(name): function
        for name, function in functions
        if {"include_top", "weights", "classes"} <= inspect.signature(function).parameters.keys()
    }


def _snake(name: str) -> str:
    return "_".join(re.findall(_WORDS, name)).lower()


@functools.cache
def _shipped_files() -> dict[str, Path]:
    return {path.stem: path for path in sorted(_SHIPPED.glob("*.json"))}


def _known_name(name: str) -> str:
    names = {re.sub(r"[^a-z0-9]", "", known): known for known in zoo_names()}
    squeezed = re.sub(r"[^a-z0-9]", "", str(name).lower())
    if squeezed in names:
        return names[squeezed]
    close = [names[key] for key in difflib.get_close_matches(squeezed, names, n=3, cutoff=0.6)]
    raise OptionError(
        expected="the name of a network of the zoo",
        found=repr(name),
        where="network",
        fix=f"did you mean {' or '.join(close)}" if close else f"choose one of {', '.join(names.values())}",
    )


@functools.cache
def _preprocess_of(build: Callable[..., Any]) -> str:
    """The mode that equals the `preprocess_input` in the module of a network."""
    pixels = np.linspace(0.0, 255.0, 24, dtype=np.float32).reshape(1, 2, 4, 3)
    result = sys.modules[build.__module__].preprocess_input(pixels.copy())
    fitting = [
        mode for mode in ("none", "tf", "torch", "caffe") if np.allclose(apply_mode(pixels, mode), result, atol=1e-5)
    ]
    assert len(fitting) == 1, f"{build.__name__}: the preprocessing of Keras is none that we know"
    return fitting[0]


def _check_options(name: str, build: Callable[..., Any], options: Mapping[str, Any]) -> None:
    accepted = inspect.signature(build).parameters
    for option in options:
        if option not in accepted:
            takers = [
                known for known, other in _constructors().items() if option in inspect.signature(other).parameters
            ]
            raise OptionError(
                expected=f"an option of this network ('{option}' is one of {', '.join(takers)})",
                found=f"'{option}'",
                where=name,
                fix="leave it out or choose another network",
            )


def _build(
    name: str, build: Callable[..., Any], options: Mapping[str, Any], seed: int, weights: str | None
) -> keras.Model:
    options = dict(options)
    if "input_shape" not in options and build.__module__.endswith("mobilenet_v3"):
        options["input_shape"] = (_UNSTATED_SIZE, _UNSTATED_SIZE, 3)
    try:
        with _seeded(seed), _download_timeout():
            return build(weights=weights, **options)
    except Exception as error:
        reason = first_words(error)
        download_failed = weights is not None and (not isinstance(error, ValueError) or "corrupted" in reason.lower())
        if download_failed:
            raise ModelError(
                expected="ImageNet weights, downloaded or in the cache of Keras",
                found=f"no download ({reason})",
                where=name,
                fix=f"{_by_hand(error)}, or convert without training with --weights random",
            ) from error
        raise OptionError(
            expected="options that this network can be built with",
            found=_listed({**options, **({"weights": weights} if weights else {})}),
            where=name,
            fix=f"change them (Keras says: {reason})",
        ) from error


def _by_hand(error: Exception) -> str:
    """How to get weights to a machine without a network; Keras names the address that it could not reach."""
    address = re.search(r"https?://[^\s:]+", str(error))
    if address is None:
        return "download the weights elsewhere and pass the file with --weights FILE"
    file, cache = address[0].rsplit("/", 1)[-1], Path(os.environ.get("KERAS_HOME", "~/.keras")) / "models"
    return f"download {address[0]} elsewhere and put it into {cache} as {file}, or pass it with --weights {file}"


def _listed(options: Mapping[str, Any]) -> str:
    """In the words of `load_zoo`: Keras's `input_shape` is our `input_size`."""
    named = {"input_size" if key == "input_shape" else key: value for key, value in options.items()}
    return ", ".join(f"{k}={v[:2] if k == 'input_size' else v}" for k, v in named.items()) or "the defaults"


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Keras draws the seeds of initializers from Python's generator; its state is put back."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


@contextmanager
def _download_timeout() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _input_size(model: keras.Model) -> tuple[int, int]:
    _, height, width, _ = model.input_shape
    return height, width


def _shipped_facts(name: str) -> dict[str, Any]:
    path = _shipped_files()[name]
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        check_mode(facts["preprocess"])
        if not (_SHIPPED / facts["file"]).is_file():
            raise FileNotFoundError(facts["file"])
        return facts
    except (OSError, ValueError, KeyError, OptionError) as error:
        raise ModelError(
            expected="a description with 'file' and 'preprocess'",
            found=f"{first_words(error)}",
            where=str(path),
            fix="install the package again",
        ) from error


def _load_shipped(name: str) -> ZooModel:
    facts = _shipped_facts(name)
    model = load_keras(_SHIPPED / facts["file"])
    return ZooModel(
        name=name,
        model=model,
        preprocess=facts["preprocess"],
        input_size=_input_size(model),
        weights="shipped",
        data={kind: str(_SHIPPED / file) for kind, file in facts.get("data", {}).items()},
        classes=tuple(facts.get("classes", ())),
    )
