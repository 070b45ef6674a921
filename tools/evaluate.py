"""`evaluate FILE`: accuracy of an integer file on labelled data, and how near it is to its float network, on any runtime.

    intact evaluate model.tflite --data=pictures/ --labels=labels.csv --preprocess=tf
    intact evaluate model.tflite --data=test.npz --float_model=model.keras
    intact evaluate model.tflite --data=test.npz --runtime=local --runtime=ssh://pi@raspberrypi

FILE is any .tflite file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from absl import flags
from rich.table import Column, Table

from converter import preprocess
from converter.data import InputSpec, check_data, open_data
from converter.data.given import classes_of
from converter.data.stateful import with_states
from converter.frontends import check_there
from converter.runtimes.choose import choose_runtime
from converter.runtimes.machines import on_all
from converter.tflite.model_file import load
from converter.tflite.reader import to_graph
from ir.errors import ConversionError, DataError, OptionError
from tools._command import SEEDS, console, import_backend, one_argument, progress_bar, run_command, write_json

if TYPE_CHECKING:
    from converter.evaluation import Evaluation, Share

FLAGS = flags.FLAGS


def define_flags() -> None:
    """The flags of this command; defined when it runs."""
    flags.DEFINE_string("model", None, "The .tflite file; also the first argument: evaluate FILE.")
    flags.DEFINE_string("float_model", None, "The network that it was converted from: a file, or a name of the zoo.")
    flags.DEFINE_string(
        "weights", None, "For a name of the zoo: 'imagenet' (the default), a file of weights, or 'random'."
    )
    flags.DEFINE_string("data", None, "A folder of images, an .npy or .npz, or a TFRecord.")
    flags.DEFINE_string("labels", None, "A CSV of file and label, or an array, where the data has no labels inside.")
    flags.DEFINE_enum("preprocess", None, list(preprocess.MODES), "Of images; known for models of the zoo.")
    flags.DEFINE_integer(
        "samples", None, "How many samples, evenly spaced over the data; all by default.", lower_bound=1
    )
    flags.DEFINE_multi_string(
        "runtime",
        ["emulator"],
        "Where: emulator[/PROFILE], local[/KERNELS], tflite-runtime[/KERNELS], ai-edge-litert[/KERNELS], tflm, "
        "ssh://USER@HOST[:PORT][/KERNELS], adb://SERIAL[/KERNELS]; repeatable, devices work at once.",
    )
    flags.DEFINE_integer("threads", 1, "Of the interpreter.", lower_bound=1)
    flags.DEFINE_string("remote_python", None, "A device's Python that has a TFLite runtime.")
    flags.DEFINE_integer("batch_size", 8, "Samples at a time.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Another than 0 chooses samples at random.", **SEEDS)
    flags.DEFINE_string("json", None, "Writes what is shown to this file.")


def main(arguments: list[str]) -> None:
    """Evaluates as the flags say."""
    path = one_argument(arguments, FLAGS.model, command="evaluate")
    if not FLAGS.data:
        raise OptionError(
            expected="--data", found="none", where="evaluate", fix="pass a folder of images, an .npy or an .npz"
        )
    if FLAGS.float_model:
        check_there(FLAGS.float_model)
    check_data(FLAGS.data, labels=FLAGS.labels)
    runtimes = [choose_runtime(n, threads=FLAGS.threads, remote_python=FLAGS.remote_python) for n in FLAGS.runtime]
    graph = to_graph(load(path))
    with open(path, "rb") as file:
        content = file.read()
    import_backend()
    from converter.evaluation import evaluate
    from converter.frontends import load_model

    source = load_model(FLAGS.float_model, weights=FLAGS.weights) if FLAGS.float_model else None
    inputs = _input_specs(graph if source is None else source.graph, graph)
    mode = FLAGS.preprocess or (source.preprocess if source is not None else "") or "none"
    data = open_data(
        FLAGS.data,
        inputs,
        preprocess=mode,
        samples=FLAGS.samples,
        seed=FLAGS.seed,
        labels=FLAGS.labels,
        classes=classes_of(graph),
    )
    if source is not None:
        data = with_states(source.graph, data)
    warn_of_range(graph, data)
    if data.labels is None and source is None:
        raise DataError(
            expected="labels, or the float network to compare with",
            found="neither",
            where=FLAGS.data,
            fix="pass --labels or --float_model",
        )
    with progress_bar() as progress:
        results = on_all(
            runtimes,
            lambda runtime: evaluate(
                content,
                data,
                runtime,
                reference=None if source is None else source.graph,
                labels=data.labels,
                batch_size=FLAGS.batch_size,
                progress=progress,
            ),
        )
    report(path, runtimes, results)


def report(path: str, runtimes: list[Any], results: list[Any]) -> None:
    """Shows and writes an evaluation, or what went wrong, of each runtime. Raises the first of the errors."""
    done = [r for r in results if not isinstance(r, ConversionError)]
    failed = [r for r in results if isinstance(r, ConversionError)]
    if done:
        show(done)
    for error in failed[1:]:  # the first one ends the command
        console.print(str(error), markup=False, soft_wrap=True)
    rows = [
        {"runtime": runtime.name, "error": str(r)} if isinstance(r, ConversionError) else {**r.as_json(), "error": None}
        for runtime, r in zip(runtimes, results, strict=True)
    ]
    write_json(FLAGS.json, {"model": path, "data": FLAGS.data, "results": rows})
    if failed:
        raise failed[0]


def warn_of_range(graph: Any, data: Any) -> None:
    """Says where the data cannot be what the file was converted for: its inputs hold much less."""
    for value, array in zip(graph.own_inputs, next(data.batches(8)), strict=False):
        if value.quant is None or not array.size:
            continue
        low, high = (float(b) for b in value.quant.bounds)
        found = float(array.min()), float(array.max())
        if found[0] < low - (high - low) or found[1] > high + (high - low):
            text = (
                f"values from {found[0]:.4g} to {found[1]:.4g}, but input '{value.name}' holds {low:.4g} to {high:.4g}"
            )
            console.print(
                f"warning: the data has {text}; pass the --preprocess of the network.", markup=False, soft_wrap=True
            )


def _input_specs(reference: Any, graph: Any) -> list[InputSpec]:
    """What the data is read as: the float network's inputs; the file's in reals where there is no network."""

    def dtype(value: Any) -> str:
        return "float32" if value.quant is not None else value.dtype.numpy.name

    if len(reference.own_inputs) != len(graph.own_inputs):
        raise OptionError(
            expected=f"a float network of {len(graph.own_inputs)} inputs",
            found=str(len(reference.own_inputs)),
            where="--float_model",
            fix="pass the network that the file was converted from",
        )
    return [InputSpec(name=v.name, shape=v.shape, dtype=dtype(v)) for v in reference.own_inputs]


def show(results: list[Evaluation]) -> None:
    """A column per runtime."""
    table = Table(
        "",
        *(Column(r.runtime, overflow="fold") for r in results),
        title=f"{results[0].samples} samples, 95 % intervals",
    )
    names = (
        ("top1", "top-1, integer"),
        ("float_top1", "top-1, float"),
        ("top5", "top-5, integer"),
        ("float_top5", "top-5, float"),
        ("agreement", "top-1 agreement with float"),
    )
    for key, title in names:
        if any(key in r.shares for r in results):
            table.add_row(title, *(_share(r.shares.get(key)) for r in results))
    if any(r.sqnr_db is not None for r in results):
        table.add_row("SQNR against float", *(_sqnr(r) for r in results))
    console.print(table)


def _share(share: Share | None) -> str:
    if share is None:
        return "-"
    low, high = share.interval
    return f"{share.value:.1%} ({low:.1%} to {high:.1%})"


def _sqnr(result: Evaluation) -> str:
    if result.sqnr_db is None or result.sqnr_interval_db is None:
        return "-"
    low, high = result.sqnr_interval_db
    return f"{result.sqnr_db:.1f} dB ({low:.1f} to {high:.1f})"


def run() -> None:
    """Entry point."""
    define_flags()
    run_command(main, positional=True)


if __name__ == "__main__":
    run()
