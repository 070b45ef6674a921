"""ONNX files and programs of PyTorch: the tools that are made for them write a float .tflite, which is then converted.

Each has needs of its own (onnx2tf one version of TensorFlow and of NumPy), so it is a program on the path, in whatever
environment, that runs in a process of its own with limits of time, memory and files.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from converter.frontends import export_torch
from converter.frontends.options import ModelOptions
from converter.programs import find_program, lines_of, lower_limits, run_program
from ir.errors import ModelError, OptionError

_LIMIT_S = 1800.0
_MOST_BYTES, _MOST_FILE_BYTES = 32 << 30, 4 << 30  # of address space, of which TensorFlow and PyTorch take much
_PICTURES = "calibration_image_sample_data_20x128x128x3_float32.npy"  # onnx2tf compares operators on them


@dataclass(frozen=True)
class Exporter:
    """A tool that writes a float .tflite.

    Attributes:
      reads: what it is given, in words.
      program: the command that it installs.
      command: `(program, model, folder, options)` to the command line; the .tflite appears somewhere in the folder.
      copies: whether it may write to the model's file, and so is given a copy.
    """

    reads: str
    program: str
    command: Callable[[Path, Path, Path, ModelOptions], list[str]]
    copies: bool = False


def _onnx2tf(program: Path, model: Path, folder: Path, options: ModelOptions) -> list[str]:
    if "" in options.input_shapes:
        raise OptionError(
            expected="shapes by the inputs' names, as in the ONNX model",
            found="a shape without a name",
            where="--input_shape",
            fix="pass NAME=1,3,224,224",
        )
    np.save(folder / _PICTURES, np.random.default_rng(0).random((20, 128, 128, 3), np.float32))  # or it downloads them
    shapes = [f"{name}:{','.join(map(str, shape))}" for name, shape in options.input_shapes.items()]
    return [
        *(str(program), "-i", str(model), "-o", str(folder / "made"), "-n", "-coion"),
        *("-b", str(options.batch_size or 1)),
        *(("-ois", *shapes) if shapes else ()),
    ]


def _litert_torch(program: Path, model: Path, folder: Path, options: ModelOptions) -> list[str]:
    if options.batch_size or options.input_shapes:
        raise OptionError(
            expected="sizes as the program was exported with",
            found="--batch_size or --input_shape",
            where=str(model),
            fix="export it again with an example of that size",
        )
    return [str(program.resolve().with_name("python3")), export_torch.__file__, str(model), str(folder / "made.tflite")]


EXPORTERS: Mapping[str, Exporter] = {
    ".onnx": Exporter("an ONNX model", "onnx2tf", _onnx2tf, copies=True),
    ".pt2": Exporter("a program that torch.export.save wrote", "litert-torch", _litert_torch),
}


def float_tflite(model: Path, options: ModelOptions) -> bytes:
    """The model as a float .tflite: inputs of pictures with the channels last, named as in the model.

    Raises:
      ModelError: the tool is not installed, or does not convert this model within the limits.
      OptionError: an option that concerns sizes which the model fixes.
    """
    exporter = EXPORTERS[model.suffix]
    program = _program(exporter, model)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        given = _copied(model, folder) if exporter.copies else model.resolve()
        _run(exporter, exporter.command(program, given, folder, options), model, folder)
        made = sorted(folder.rglob("*.tflite"), key=lambda path: path.stat().st_size)
        if not made:
            raise _not_converted(exporter, model, "no file")
        return made[-1].read_bytes()  # onnx2tf writes one of half precision, too


def _program(exporter: Exporter, model: Path) -> Path:
    found = find_program(exporter.program)
    if found is None:
        raise ModelError(
            expected=f"the program {exporter.program}, which makes {exporter.reads} readable",
            found="none",
            where=str(model),
            fix=f"install it in an environment of its own (pipx install {exporter.program}), or put it on the path",
        )
    return Path(found)


def _copied(model: Path, folder: Path) -> Path:
    """The model in that folder, with the files of large weights that lie beside it (`net.onnx.data`)."""
    for path in model.parent.glob(f"{model.name}*"):
        if path.is_file():
            shutil.copyfile(path, folder / path.name)
    return folder / model.name


def _run(exporter: Exporter, command: list[str], model: Path, folder: Path) -> None:
    beside = str(Path(command[0]).resolve().parent)
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    environment["PATH"] = os.pathsep.join([beside, environment.get("PATH", "")])
    environment["CUDA_VISIBLE_DEVICES"] = ""
    try:
        status, said = run_program(command, _LIMIT_S, cwd=folder, env=environment, preexec_fn=_limit)
    except (subprocess.TimeoutExpired, OSError) as error:
        raise _not_converted(exporter, model, str(error)) from error
    if status:
        raise _not_converted(exporter, model, [f"exit status {status}", *lines_of(said)][-1][:300])


def _limit() -> None:
    lower_limits({resource.RLIMIT_AS: _MOST_BYTES, resource.RLIMIT_FSIZE: _MOST_FILE_BYTES})


def _not_converted(exporter: Exporter, model: Path, found: str) -> ModelError:
    return ModelError(
        expected=f"{exporter.reads} that {exporter.program} converts",
        found=found,
        where=str(model),
        fix=f"see what {exporter.program} says of it, or export the network in another way",
    )
