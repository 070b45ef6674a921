"""`quantize_aware()`: from a Keras model to one that is trained as its integer file will compute."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras

from converter.arguments import checked
from converter.bits import Bits, RequestedBits
from converter.choosing import RequestedPasses, choose_passes
from converter.data.given import Data
from converter.frontends import ModelOptions
from converter.gathering import ConversionData, RequestedData, gather
from converter.network import Network, read_network
from converter.targets import Target, get_target
from ir.graph import Graph
from passes.contract.base import Context, Given, Pass, SideTables
from passes.contract.options import Names, Numbers, Values, check_option
from passes.quantization.quantize import Quantize
from passes.running.runner import run_passes
from passes.training.lsq import STARTS, start_steps
from passes.training.stepped import BATCH_NORMS, Steps
from passes.training.student import Student
from passes.training.tuning_data import integers_of

__all__ = ["Student", "quantize_aware"]

_FIRST = 64  # samples that steps of activations start from


@checked
def quantize_aware(
    model: Any,
    *,
    weight_bits: int = 8,
    activation_bits: int = 8,
    bits: Bits | None = None,
    calibration_data: Data | None = None,
    calibration_samples: int | None = 100,
    preprocess: str | None = None,
    granularity: str | None = None,
    target: str | Target = "cpu",
    start: str = "auto",
    batch_norm: str = "batch",
    noise: float = 1.0,
    activation_noise: float = 1.0,
    decay: float = 0.0,
    seed: int = 0,
    model_options: ModelOptions | None = None,
) -> Student:
    """A `keras.Model` with the inputs and outputs of `model` that is quantized, to be trained and then converted.

    It is compiled, fitted, saved and loaded as any model; `converter.convert(student, ...)` writes the file of what was
    trained. Weights, biases and step sizes are its variables (LSQ, arXiv:1902.08153; docs/methods/qat.md). Layers have
    the names that they had, and those with `trainable=False` are not trained.

    Args:
      model: a Keras model, or the path of one; read as `convert` reads it, and not changed.
      weight_bits, activation_bits, bits: as of `convert`; the first and last layers keep 8 bits, unless `bits` says
        otherwise.
      calibration_data: a few hundred samples that ranges start from; without any, they start from batch norms.
      start: of steps: "range", as calibrated; "mean", those of fewer than 8 bits as LSQ has them,
        `2 mean|v| / sqrt(qmax)`; "auto", only those of fewer than 4.
      batch_norm: "batch" normalizes by the batch in training where weights have a scale per channel, "frozen" folds
        the statistics that the model came with.
      noise, activation_noise: share of weights, and of elements of activations, that are quantized in a training step
        (Quant-Noise, arXiv:2004.07320); in inference all are.
      decay: of the weights, added to the loss; half of it at 3 bits, a quarter at 2.

    Raises:
      ConversionError: the model, the data or the options cannot be used.
    """
    share = Numbers(above=0, most=1)
    allowed: dict[str, tuple[object, Values]] = {
        "start": (start, Names(tuple(STARTS))),
        "batch_norm": (batch_norm, Names(tuple(BATCH_NORMS))),
        "noise": (noise, share),
        "activation_noise": (activation_noise, share),
        "decay": (decay, Numbers(least=0)),
    }
    for option, (value, values) in allowed.items():
        check_option(value, values, f"quantize_aware, {option}")
    chosen = get_target(target) if isinstance(target, str) else target
    network = read_network(model, weights=None, options=model_options, preprocess=preprocess)
    requested = RequestedData(calibration_data=calibration_data, calibration_samples=calibration_samples, seed=seed)
    data = gather(network, requested)
    widths = RequestedBits(weight_bits=weight_bits, activation_bits=activation_bits, bits=bits)
    passes = _to_quantize(network, data, chosen, RequestedPasses(granularity=granularity, bits=widths))
    given = Given(
        samples=data.calibration,
        reference=network.reference,
        limits=chosen,
        input_range=network.input_range,
        seed=seed,
    )
    context = Context(given, SideTables(learned=dict(network.learned)))
    run_passes(network.graph, passes, context)
    if STARTS[start] and data.calibration is not None:
        first = next(iter(data.calibration.batches(_FIRST)))
        start_steps(
            network.graph, [integers_of(x, v) for x, v in zip(first, network.graph.inputs, strict=True)], STARTS[start]
        )
    steps = Steps(noise=noise, activation_noise=activation_noise, decay=decay, batch_norm=batch_norm, seed=seed)
    return Student(network.graph, steps, normals=context.tables.normals, frozen=_frozen(model, network.graph))


def _to_quantize(network: Network, data: ConversionData, target: Target, requested: RequestedPasses) -> list[Pass]:
    """The passes up to the one that quantizes."""
    pipeline = "fast" if data.calibration is not None else "data_free_fast"
    steps = choose_passes(network.graph, data, target, dataclasses.replace(requested, pipeline=pipeline))
    at = next(i for i, step in enumerate(steps) if isinstance(step, Quantize))
    return steps[: at + 1]


def _frozen(model: Any, graph: Graph) -> list[str]:
    """The nodes of the graph whose layers the user has frozen."""
    if not isinstance(model, keras.Model):
        return []
    names = {layer.name for layer in model._flatten_layers() if layer.weights and not layer.trainable}
    return [node.name for node in graph.nodes if names & set(node.name.split("/"))]
