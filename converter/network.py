"""The network that a conversion works on: as it was read, and the copy that passes rewrite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.frontends import ModelOptions, load_model
from converter.preprocess import Preprocess, usual_range
from ir.graph import Graph, Value
from passes.contract.base import Range


@dataclass(frozen=True, kw_only=True)
class Network:
    """A float network and what is known of its inputs.

    Attributes:
      reference: the graph as it was read; never changed.
      graph: the copy that passes rewrite in place.
      learned: quantization ranges that the network brought with it, by value of `graph`.
      preprocess: how its images are preprocessed, "" where it is not given.
      usual_preprocess: how the images that it was trained on were, "" where that is not known.
      warnings: what looks wrong with it.
    """

    reference: Graph
    graph: Graph
    learned: Mapping[Value, Range]
    preprocess: Preprocess
    usual_preprocess: str
    warnings: tuple[str, ...] = ()

    @property
    def input_range(self) -> Range | None:
        """The reals that its preprocessing makes of images, None where that is not known or leaves them open."""
        usual = usual_range(self.preprocess)
        return None if usual is None or self.preprocess == "none" else Range(usual.low, usual.high)


def read_network(
    model: Any, *, weights: str | None, options: ModelOptions | None, preprocess: Preprocess | None
) -> Network:
    """Reads a model in any form that `convert` takes. Raises ModelError or OptionError as `load_model`."""
    source = load_model(model, weights=weights, options=options)
    twin = source.graph.twin()
    return Network(
        reference=source.graph,
        graph=twin.graph,
        learned={twin.values[value]: learned for value, learned in source.ranges.items()},
        preprocess=preprocess or source.preprocess,
        usual_preprocess=source.preprocess,
        warnings=source.warnings,
    )


def described(model: Any) -> str:
    """A model in any form that `convert` takes, in a few words."""
    if isinstance(model, (str, Path)):
        return str(model)
    if isinstance(model, bytes):
        return f"a file of {len(model)} bytes"
    return f"{type(model).__name__} '{getattr(model, 'name', '')}'"
