"""Keras models that cannot be followed layer by layer, by way of a SavedModel that TensorFlow's converter reads.

It traces what the model computes, whatever its layers are written with; batch norms come out folded, and layers under
names of TensorFlow's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from converter.frontends.naming import rename
from converter.frontends.options import ModelOptions
from converter.frontends.source import Source
from ir.errors import ConversionError, ModelError
from ir.graph import Graph


def by_saved_model(model: Any, options: ModelOptions, why: ModelError) -> Source:
    """The network of a model of either Keras; raises `why` where that way is not open either."""
    from converter.frontends.saved_model import from_saved_model

    with tempfile.TemporaryDirectory() as folder:
        try:
            with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(), _written_out(model):
                warnings.simplefilter("ignore")
                model.export(str(Path(folder) / "model"))
            source = from_saved_model(Path(folder) / "model", dataclasses.replace(options, output_nodes=()))
        except ConversionError as error:
            raise why from error
        except Exception as error:  # of any library underneath: what cannot be followed may not be exported either
            raise why from error
    _as_in_model(source.graph, model)
    said = (
        f"{why.where}: {why.found}; so the network was read by way of a SavedModel, in which batch norms are folded: "
        "passes that look at them (--pipeline=data_free) know less"
    )
    return dataclasses.replace(source, warnings=(*source.warnings, said))


@contextlib.contextmanager
def _written_out(model: Any) -> Iterator[None]:
    """While it lasts, recurrent layers are traced step by step: TFLite has no loops over lists of tensors."""
    layers = [part for part in getattr(model, "_flatten_layers", list)() if getattr(part, "unroll", None) is False]
    try:
        for part in layers:
            part.unroll = True
        yield
    finally:
        for part in layers:
            part.unroll = False


def _as_in_model(graph: Graph, model: Any) -> None:
    """Inputs in the model's order and outputs by its names, as callers count them: a signature sorts the one by name and numbers the other."""
    names = list(getattr(model, "input_names", None) or [t.name for t in getattr(model, "inputs", None) or []])
    if {v.name for v in graph.inputs} == set(names):
        graph.inputs.sort(key=lambda value: names.index(value.name))
    results = list(getattr(model, "output_names", None) or [])
    numbered = [v.name for v in graph.outputs] == [f"output_{i}" for i in range(len(results))]
    if numbered and len(set(results)) == len(results) and not {v.name for v in graph.inputs} & set(results):
        rename(graph, dict(zip(graph.outputs, results, strict=True)))
