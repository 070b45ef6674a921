"""`survey FOLDER`: a row for every model of a folder: converted or refused and why, how close to float, how large.

    intact survey models/ --json=rows.json
    intact survey models/ --images=pictures/ --preprocess=tf --target=edgetpu

The options file holds an object by file name; each entry may have `input_shape` (a list of texts), `signature`,
`input_arrays`, `output_arrays`, `output_nodes`, `batch_size` as in `convert`; `preprocess`; `data` and
`calibration_data` (samples to judge and to calibrate on, in place of photographs and noise; for a network with states
consecutive samples of its other inputs); `images` and `calibration_images` (folders of photographs, in place of
`--images`); and `why`, a remark.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from absl import flags
from rich.table import Table

from converter import preprocess
from converter.frontends import EXPORTERS, KERAS_SUFFIXES, TFLITE_SUFFIXES
from converter.targets import TARGETS
from ir.errors import DataError, OptionError
from passes.running import pipeline as pipelines
from tools._command import SEEDS, console, import_backend, one_argument, progress_bar, run_command, write_json

FLAGS = flags.FLAGS

MODEL_SUFFIXES = (*TFLITE_SUFFIXES, *KERAS_SUFFIXES, *EXPORTERS, ".pb")
_KEYS = ("input_shape", "signature", "input_arrays", "output_arrays", "output_nodes", "batch_size")
_PATHS = ("data", "calibration_data")
_FOLDERS = {"images": "photographs", "calibration_images": "calibration_photographs"}
_REMARKS = ("why", "floor_db", "refused", "fast")


def define_flags() -> None:
    """The flags of this command; defined when it runs."""
    flags.DEFINE_string("folder", None, "The models; also the first argument: survey FOLDER.")
    flags.DEFINE_string("json", None, "Writes the rows to this file: a list.")
    flags.DEFINE_string("images", None, "A folder of photographs for networks that take images; noise without it.")
    flags.DEFINE_enum("preprocess", "unit", list(preprocess.MODES), "Of the photographs.")
    flags.DEFINE_string("options", None, "A JSON file: by file name, options of that model (see below).")
    flags.DEFINE_string("data_root", ".", "What relative paths in the options file begin at.")
    flags.DEFINE_list("files", [], "Only these files of the folder.")
    flags.DEFINE_enum("target", "cpu", list(TARGETS), "Where the files will run.")
    flags.DEFINE_enum("pipeline", None, list(pipelines.PIPELINES), "A named pipeline.")
    flags.DEFINE_string("passes", None, "Passes as text in place of a pipeline.")
    flags.DEFINE_bool("allow_float_fallback", False, "Keeps operators that have no integer form in float.")
    flags.DEFINE_integer("calibration_samples", 32, "Samples to calibrate on.", lower_bound=1)
    flags.DEFINE_integer("samples", 8, "Samples to judge on.", lower_bound=1)
    flags.DEFINE_integer("exact_samples", 1, "Samples on which emulator and runtimes are compared.", lower_bound=1)
    flags.DEFINE_bool("reference_kernels", True, "Compares with the runtimes' reference kernels too, which are slow.")
    flags.DEFINE_integer("seed", 0, "Of everything that is drawn at random.", **SEEDS)


def main(arguments: list[str]) -> None:
    """Surveys as the flags say."""
    folder = Path(one_argument(arguments, FLAGS.folder, command="survey", kind="folder of models", flag="folder"))
    models = find_models(folder)
    overrides = read_options(FLAGS.options)
    import_backend()
    from converter.survey import survey_model

    rows = []
    with progress_bar() as progress:
        progress("survey", 0, len(models))
        for done, path in enumerate(models, 1):
            row = survey_model(path, options_for(overrides.get(path.name, {})))
            rows.append(row)
            progress("survey", done, len(models))
            console.print(line(row), markup=False, soft_wrap=True)
            write_json(FLAGS.json, [r.as_json() for r in rows])
    show(rows)


def find_models(folder: Path) -> list[Path]:
    """Model files and SavedModel directories of a folder, by name."""
    if not folder.is_dir():
        raise DataError(expected="a folder of models", found="none", where=str(folder), fix="check the path")
    found = [p for p in sorted(folder.iterdir()) if p.suffix in MODEL_SUFFIXES or (p / "saved_model.pb").exists()]
    if FLAGS.files:
        missing = set(FLAGS.files) - {p.name for p in found}
        if missing:
            raise OptionError(
                expected=f"models of {folder}", found=", ".join(sorted(missing)), where="--files", fix="check the names"
            )
        found = [p for p in found if p.name in FLAGS.files]
    if not found:
        kinds = f"files that end in {', '.join(MODEL_SUFFIXES)}"
        raise DataError(expected=kinds, found="none", where=str(folder), fix="check the path")
    return found


def read_options(path: str | None) -> dict[str, dict[str, Any]]:
    """Options by file name. Raises OptionError for a file that holds something else."""
    if path is None:
        return {}
    try:
        content = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise OptionError(expected="a JSON file", found=str(error), where="--options", fix="check the file") from error
    known = {*_KEYS, *_PATHS, *_FOLDERS, *_REMARKS, "preprocess"}
    if not isinstance(content, dict) or not all(isinstance(v, dict) and set(v) <= known for v in content.values()):
        raise OptionError(
            expected=f"an object by file name, with {', '.join(sorted(known))}",
            found="something else",
            where="--options",
            fix="correct the file",
        )
    return content


def options_for(override: dict[str, Any]) -> Any:
    """The flags and what the options file says of one model."""
    from converter.frontends import ModelOptions, parse_input_shapes
    from converter.survey import SurveyOptions

    given = {k: override[k] for k in _KEYS if k in override}
    shapes = parse_input_shapes(given.pop("input_shape", []))
    listed = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    arguments = {"target": FLAGS.target, "pipeline": FLAGS.pipeline, "passes": FLAGS.passes, "seed": FLAGS.seed}
    options = SurveyOptions(
        photographs=None if FLAGS.images is None else Path(FLAGS.images),
        preprocess=FLAGS.preprocess,
        calibration_samples=FLAGS.calibration_samples,
        samples=FLAGS.samples,
        exact_samples=FLAGS.exact_samples,
        reference_kernels=FLAGS.reference_kernels,
        model_options=ModelOptions(input_shapes=shapes, **listed),
        convert={**arguments, "allow_float_fallback": FLAGS.allow_float_fallback},
    )
    paths: dict[str, Any] = {k: str(Path(FLAGS.data_root) / override[k]) for k in _PATHS if k in override}
    paths |= {f: Path(FLAGS.data_root) / override[k] for k, f in _FOLDERS.items() if k in override}
    return dataclasses.replace(options, preprocess=override.get("preprocess", FLAGS.preprocess), **paths)


def line(row: Any) -> str:
    """A row as it is shown while the survey runs."""
    if row.status != "converted":
        return f"{row.file}: {row.status}: {row.reason}"
    equal = {True: "equal", False: f"DIFFERS {row.differing}", None: "not compared"}[row.emulator_equal]
    kind = "integer only" if row.integer_only else f"float: {', '.join(row.float_operators)}"
    middle = "of no output that varies"
    if row.sqnr_db is not None:
        middle = f"{row.sqnr_db:.1f} dB, of the median sample {row.sample_sqnr_db:.1f}"
    return (
        f"{row.file}: {kind}, SQNR {middle} "
        f"({', '.join(f'{q.name} {q.sqnr_db:.1f} {q.sample_sqnr_db:.1f}' for q in row.outputs)}), "
        f"emulator {equal}, {row.seconds:.1f} s"
    )


def show(rows: list[Any]) -> None:
    """The table, and the shares."""
    table = Table("file", "status", "integer only", "SQNR dB", "cosine", "emulator", "MB", "s")
    for row in rows:
        equal = {True: "equal", False: "differs", None: "-"}[row.emulator_equal]
        table.add_row(
            row.file,
            row.status,
            "-" if row.integer_only is None else "yes" if row.integer_only else "no",
            "-" if row.sqnr_db is None else f"{row.sqnr_db:.1f} ({row.sample_sqnr_db:.1f})",
            "-" if row.cosine is None else f"{row.cosine:.4f}",
            equal,
            "-" if row.size_bytes is None else f"{row.size_bytes / 1e6:.2f}",
            f"{row.seconds:.1f}",
        )
    console.print(table)
    for row in rows:
        if row.status != "converted":
            console.print(f"{row.file}: {row.reason}", markup=False, soft_wrap=True)
    good = sum(row.status == "converted" for row in rows)
    console.print(f"{good} of {len(rows)} converted ({good / len(rows):.0%})", markup=False)


def run() -> None:
    """Entry point."""
    define_flags()
    run_command(main, positional=True)


if __name__ == "__main__":
    run()
