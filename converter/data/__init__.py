"""Samples for calibration and evaluation, from files of many kinds, read a batch at a time."""

from converter.data.opening import check_data, from_arrays, open_data
from converter.data.source import DataSource, InputSpec
from converter.preprocess import USUAL_RANGE, check_pixels, check_range

__all__ = [
    "USUAL_RANGE",
    "DataSource",
    "InputSpec",
    "check_data",
    "check_pixels",
    "check_range",
    "from_arrays",
    "open_data",
]
