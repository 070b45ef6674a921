"""From a trained network to a fully integer TFLite file: frontends, writer, runtimes, reports."""

from ir.errors import (
    ConversionError,
    DataError,
    ModelError,
    OptionError,
    OutputError,
    RuntimeFailure,
)

__all__ = ["ConversionError", "DataError", "ModelError", "OptionError", "OutputError", "RuntimeFailure"]
