"""Keras models from files: `.keras` archives, in safe mode, and the `.h5` files of older versions.

Files may come from anywhere, so they are looked at before Keras loads them: they must be what their suffix
says, and must not claim to hold much more than they do. What older versions wrote and Keras 3 no longer takes
is corrected in a copy of the configuration: arguments that mean nothing any more, `/` in layer names (which becomes `_`),
models within models, whose calls Keras 2 counted from 1, and lists of one end.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import h5py
import keras

from converter.regular import other_than_file
from ir.errors import ModelError

_SPARE_BYTES = 64 << 20  # any file may unpack to this much ...
_MOST_EXPANSION = 64  # ... or to this many times its size
_SPARE_TEXT = 1 << 20  # of a configuration, of which each byte takes a hundred when it is read

_AGAIN = "write or download the file again"
_LEAST_S, _BYTES_PER_S = 10, 20 << 20
_READ_ALL = """
import sys
import h5py
with h5py.File(sys.argv[1], "r") as file:
    dict(file.attrs)
    file.visititems(lambda name, item: dict(item.attrs) and None)
"""

# Arguments of older versions with the values that Keras 3 computes anyway; with other values they stay and
# fail.
_OBSOLETE: dict[str, tuple[Any, ...]] = {
    "groups": (1,),
    "fused": (None, True, False),
    "virtual_batch_size": (None,),
    "adjustment": (None,),
    "renorm": (False,),
    "renorm_clipping": (None, {}),
    "renorm_momentum": (0.99,),
    "ragged": (False,),
    "time_major": (False,),
    "implementation": (1, 2),
    "batch_input_shape": (None,),
}


def load_keras(path: str | Path) -> keras.Model:
    """The model in a file, not compiled. Raises ModelError if none is there, or none that loads safely."""
    path = Path(path)
    if not path.is_file():
        directory = path.is_dir()
        saved = directory and (path / "saved_model.pb").exists()
        raise _error(
            path,
            found=("a SavedModel directory" if saved else "a directory") if directory else "nothing there",
            fix="save the Keras model with model.save('model.keras')" if directory else "check the path",
        )
    kind = _kind(path)
    try:
        with _corrected(path, kind) as readable, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return keras.models.load_model(str(readable), compile=False, safe_mode=True)
    except ModelError:
        raise
    except Exception as error:  # of any library underneath: the file can be wrong in any way
        found, fix = _explained(error)
        raise _error(path, found, fix) from error


def _error(path: Path, found: str, fix: str) -> ModelError:
    return ModelError(expected="a Keras model (.keras or .h5)", found=found, where=str(path), fix=fix)


def check_keras_file(path: Path) -> None:
    """Raises ModelError unless a file is a Keras model, to be looked into without harm."""
    if found := other_than_file(path):
        raise _error(path, found, "check the path")
    _kind(path)


def _kind(path: Path) -> str:
    """What the content is: ".keras" or ".h5". Raises ModelError for anything else, and for too much of it."""
    try:
        if zipfile.is_zipfile(path):
            _check_archive(path)
            return ".keras"
        if h5py.is_hdf5(path):
            _check_ends(path)
            with h5py.File(path, "r") as file:
                if "model_config" not in file.attrs:
                    raise _error(
                        path,
                        "an .h5 file without a model (weights only?)",
                        "build the model in Python, load_weights() and save it by model.save('model.keras')",
                    )
                _check_datasets(path, file)
            return ".h5"
    except (OSError, RuntimeError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise _error(path, f"a damaged file ({first_words(error)})", "write or download the file again") from error
    raise _error(path, "another kind of file, or a damaged one", "save the model with model.save('model.keras')")


def _check_archive(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if "config.json" not in archive.namelist():
            raise _error(path, "a zip archive without config.json", "save the model with model.save('model.keras')")
        _check_size(path, sum(member.file_size for member in members))
        texts = [member.file_size for member in members if member.filename.endswith(".json")]
        _check_size(path, max(texts), _SPARE_TEXT, 1)
        for member in members:
            if member.filename.endswith(".h5"):
                with _seekable(archive, member) as stream, h5py.File(stream, "r") as file:
                    _check_datasets(path, file)


def _check_ends(path: Path) -> None:
    """Reads a whole HDF5 file in a process of its own, which may take no longer than an honest file can.

    Raises ModelError where it does not come to an end, or ends the process: the library follows whatever a damaged file
    says, and cannot be stopped from within.
    """
    limit_s = _LEAST_S + path.stat().st_size / _BYTES_PER_S
    command = [sys.executable, "-c", _READ_ALL, str(path)]
    try:
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=limit_s)
    except subprocess.TimeoutExpired as error:
        raise _error(path, "a damaged file, which cannot be read to its end", _AGAIN) from error
    if done.returncode < 0:
        raise _error(path, "a damaged file, which the HDF5 library does not survive", _AGAIN)


@contextmanager
def _seekable(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[IO[bytes]]:
    """A member to be read in any order; going back in a compressed one would unpack it again every time."""
    with archive.open(member) as stream:
        if member.compress_type == zipfile.ZIP_STORED:
            yield stream
            return
        with tempfile.TemporaryFile() as copy:
            shutil.copyfileobj(stream, copy)
            yield copy


def _check_datasets(path: Path, file: h5py.File) -> None:
    """What the datasets would take in memory: HDF5 stores compressed and never-written parts in no space."""
    total = 0

    def visit(name: str, item: Any) -> None:
        nonlocal total
        if isinstance(item, h5py.Dataset):
            total += item.size * item.dtype.itemsize
            if item.external or item.is_virtual:
                raise outside(name)

    def outside(name: str) -> ModelError:
        return _error(path, f"'{name}', which is stored in another file", "save the model again, in one file")

    if name := file.visititems_links(lambda name, link: name if isinstance(link, h5py.ExternalLink) else None):
        raise outside(name)  # not from within: h5py does not take it there
    file.visititems(visit)
    _check_size(path, total)


def _check_size(path: Path, unpacked: int, spare: int = _SPARE_BYTES, most_expansion: int = _MOST_EXPANSION) -> None:
    size = path.stat().st_size
    if unpacked > spare + most_expansion * size:
        raise _error(
            path,
            f"{size} bytes that claim to unpack to {unpacked}",
            "save the model again, without compression, if you trust where it is from",
        )


def _explained(error: Exception) -> tuple[str, str]:
    """`(found, fix)` of what Keras says."""
    text = str(error)
    if "safe_mode" in text or "unsafe" in text.lower() or "lambda" in text.lower():
        return (
            "a Lambda layer or another object that carries Python code (files are loaded in safe mode)",
            "write it with keras.ops or as a registered layer and save again, or, if you trust the file, "
            "load it with keras.models.load_model(path, safe_mode=False) and convert the model object",
        )
    if "Could not locate" in text or "Unknown layer" in text or "custom_objects" in text:
        cause = first_words(error)
        name = re.search(r"(?:class|function|layer:?) '([^']+)'", cause)
        what = f"named '{name[1]}'" if name else f"({cause})"
        return (
            f"an object of a class that is not of Keras, {what}",
            "load the model in Python with custom_objects and convert the model object",
        )
    if isinstance(error, MemoryError):
        return "a model too large for this machine's memory", "check where the file is from"
    return f"one that does not load ({first_words(error)})", "write or download the file again"


def first_words(error: Exception) -> str:
    """The beginning of an error's text; Keras wraps the cause in the whole configuration of a layer."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = text.rpartition("Exception encountered: ")[2]
    return text[:200].rstrip(" .") + ("..." if len(text) > 200 else "")


# --- what older versions wrote ----------------------------------------------------------------------------


@contextmanager
def _corrected(path: Path, kind: str) -> Iterator[Path]:
    """The file, or a temporary copy under the right suffix whose configuration Keras 3 takes."""
    config, changed = _corrected_config(_read_config(path, kind))
    if not changed and path.suffix == kind:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / f"model{kind}"
        if kind == ".h5":
            shutil.copyfile(path, copy)
            with h5py.File(copy, "r+") as file:
                file.attrs["model_config"] = json.dumps(config)
        else:
            with zipfile.ZipFile(path) as old, zipfile.ZipFile(copy, "w") as new:
                for member in old.infolist():
                    with (
                        old.open(member) as source,
                        new.open(member.filename, "w", force_zip64=True) as target,
                    ):
                        _copy(source, target, config if member.filename == "config.json" else None)
        yield copy


def _copy(source: IO[bytes], target: IO[bytes], instead: Any) -> None:
    if instead is None:
        shutil.copyfileobj(source, target)
    else:
        target.write(json.dumps(instead).encode())


def _read_config(path: Path, kind: str) -> Any:
    if kind == ".keras":
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read("config.json"))
    with h5py.File(path, "r") as file:
        return json.loads(file.attrs["model_config"])


def _corrected_config(config: Any) -> tuple[Any, bool]:
    """The configuration without obsolete arguments and without `/` in names; and whether that changed it."""
    renamed = {name: name.replace("/", "_") for name in _layer_names(config) if "/" in name}
    taken = set(_layer_names(config))
    for old, new in renamed.items():
        while new in taken:
            new += "_"
        renamed[old] = new
        taken.add(new)
    corrected = _without_obsolete(_renamed(config, renamed) if renamed else config)
    corrected = _with_single_ends(_counted_from_0(corrected))
    return corrected, corrected != config


def _counted_from_0(config: Any) -> Any:
    """Calls of inner models counted from 0: Keras 2 counted their making, too."""
    if isinstance(config, list):
        return [_counted_from_0(v) for v in config]
    if not isinstance(config, dict):
        return config
    config = {k: _counted_from_0(v) for k, v in config.items()}
    layers = config.get("layers")
    models = {layer["name"] for layer in layers or () if _is_inner_model(layer)}
    first = {name: min((i for n, i in _references(config) if n == name), default=0) for name in models}
    return _moved(config, {name: i for name, i in first.items() if i}) if any(first.values()) else config


def _is_inner_model(layer: Any) -> bool:
    return isinstance(layer, dict) and "name" in layer and "layers" in (layer.get("config") or ())


def _is_reference(item: Any) -> bool:
    """`[layer, call, result]`, or with arguments behind it, as versions before 3 write where a tensor comes from."""
    return isinstance(item, list) and len(item) in (3, 4) and [type(v) for v in item[:3]] == [str, int, int]


def _references(config: Any) -> Iterator[tuple[str, int]]:
    """Layer and call of every reference in a model, those inside of inner models left out."""
    if _is_reference(config):
        yield config[0], config[1]
        config = config[3:]
    if _is_inner_model(config):
        config = config.get("inbound_nodes", [])
    for item in config.values() if isinstance(config, dict) else config if isinstance(config, list) else ():
        yield from _references(item)


def _moved(config: Any, first: dict[str, int]) -> Any:
    """The same with the calls of some layers counted from 0."""
    if _is_reference(config):
        return [config[0], config[1] - first.get(config[0], 0), config[2], *(_moved(v, first) for v in config[3:])]
    if _is_inner_model(config):
        return config | {"inbound_nodes": _moved(config.get("inbound_nodes", []), first)}
    if isinstance(config, dict):
        return {k: _moved(v, first) for k, v in config.items()}
    return [_moved(v, first) for v in config] if isinstance(config, list) else config


def _with_single_ends(config: Any) -> Any:
    """Models of one input or output take and give a tensor, not a list of one."""
    if isinstance(config, list):
        return [_with_single_ends(v) for v in config]
    if not isinstance(config, dict):
        return config
    config = {k: _with_single_ends(v) for k, v in config.items()}
    for key in ("input_layers", "output_layers"):
        ends = config.get(key)
        if isinstance(ends, list) and len(ends) == 1 and _is_reference(ends[0]):
            config[key] = ends[0]
    return config


def _layer_names(config: Any) -> list[str]:
    """The names of all layers and models in a configuration, from outside to inside."""
    names: list[str] = []
    if isinstance(config, dict):
        inner = config.get("config")
        if "class_name" in config and isinstance(inner, dict) and isinstance(inner.get("name"), str):
            names.append(inner["name"])
    items = config.values() if isinstance(config, dict) else config if isinstance(config, list) else ()
    for item in items:
        names += _layer_names(item)
    return names


def _renamed(config: Any, names: dict[str, str]) -> Any:
    """The configuration with other names, where layers are named or referred to."""
    if isinstance(config, dict):
        return {k: _renamed(v, names) for k, v in config.items()}
    if isinstance(config, list):
        return [_renamed(v, names) for v in config]
    return names.get(config, config) if isinstance(config, str) else config


def _without_obsolete(config: Any) -> Any:
    if isinstance(config, list):
        return [_without_obsolete(v) for v in config]
    if not isinstance(config, dict):
        return config
    corrected = {k: _without_obsolete(v) for k, v in config.items()}
    cls = getattr(keras.layers, str(config.get("class_name")), None)
    if cls is not None and isinstance(corrected.get("config"), dict):
        corrected["config"] = {
            k: v
            for k, v in corrected["config"].items()
            if k not in _OBSOLETE or v not in _OBSOLETE[k] or _takes(cls, k)
        }
    return corrected


def _takes(cls: type, argument: str) -> bool:
    """Whether a layer's constructor names an argument, its own or one that it passes on to a class above."""
    import inspect

    return any(
        argument in inspect.signature(vars(c)["__init__"]).parameters for c in cls.__mro__ if "__init__" in vars(c)
    )
