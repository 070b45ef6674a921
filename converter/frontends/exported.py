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
from pathlib import Path
from typing import Any

from converter.frontends.options import ModelOptions
from converter.frontends.source import Source
from ir.errors import ConversionError, ModelError


def by_saved_model(model: Any, options: ModelOptions, why: ModelError) -> Source:
    """The network of a model of either Keras; raises `why` where that way is not open either."""
    from converter.frontends.saved_model import from_saved_model

    with tempfile.TemporaryDirectory() as folder:
        try:
            with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.export(str(Path(folder) / "model"))
            source = from_saved_model(Path(folder) / "model", dataclasses.replace(options, output_nodes=()))
        except ConversionError as error:
            raise why from error
        except Exception as error:  # of any library underneath: what cannot be followed may not be exported either
            raise why from error
    said = (
        f"{why.where}: {why.found}; so the network was read by way of a SavedModel, in which batch norms are folded: "
        "passes that look at them (--pipeline=data_free) know less"
    )
    return dataclasses.replace(source, warnings=(*source.warnings, said))
