"""The row of each operator of the emitted file."""

from __future__ import annotations

from typing import Any

import numpy as np

from converter.analysis.facts import Facts
from converter.analysis.layer_causes import SHOWN, severity
from converter.analysis.measure import BINS, ChannelSums, Twins
from converter.analysis.reasons import Setting, reason_of
from converter.analysis.table import Histogram, LayerAnalysis
from converter.result import ConversionResult
from converter.tflite.packing import gather_bytes
from ir.graph import Node, Value
from passes.measuring.effects import OUTPUT, WEIGHTS, Effects, decibel

_SHOWN_BINS = 64


def layer_rows(
    result: ConversionResult,
    twins: Twins,
    table: dict[str, ChannelSums],
    facts: Facts,
    effects: Effects,
    *,
    complete: bool,
) -> list[LayerAnalysis]:
    """In the file's order; `complete`: shares of the whole are known."""
    setting = Setting(passes=result.kinds, data_free=result.trace.data is None)
    whole = sum(effects.noise.values()) if complete else 0.0
    return [
        _row(node, twins.key(node), result, table.get(twins.key(node)), facts, effects, setting, whole)
        for node in twins.emitted.nodes
    ]


def _row(
    node: Node,
    key: str,
    result: ConversionResult,
    sums: ChannelSums | None,
    facts: Facts,
    effects: Effects,
    setting: Setting,
    whole: float,
) -> LayerAnalysis:
    value, name = node.output, node.name
    quant = None if value.quant is None or value.quant.per_channel else value.quant
    seen, weights = facts.values.get(key), facts.weights.get(key)
    alone = effects.of_place(key)
    cause, suggestion = _cause(key, facts, effects, setting)
    size = _constant_bytes(node)
    measured = sums if sums is not None and sums.counts is not None else None
    return LayerAnalysis(
        name=name,
        operator="" if node.op.encoding is None else node.op.encoding.code,
        layers=tuple(dict.fromkeys((name, value.name))),
        output=value.name,
        shape=value.shape,
        sqnr_alone_db=None if measured is None else _decibel(measured.alone, measured.power),
        sqnr_db=None if measured is None else _decibel(measured.noise, measured.power),
        cosine=None if measured is None else _cosine(measured),
        clipped=None if seen is None else seen.clipped,
        scale=None if quant is None else float(quant.scale),
        zero_point=None if quant is None else int(quant.zero_point),
        range=None if quant is None else quant.bounds,
        float_range=None if seen is None else seen.seen,
        histogram=None if measured is None else _histogram(measured),
        weight_bytes=size,
        share_of_size=size / max(result.size_bytes, 1),
        weight_low=None if weights is None else weights.low,
        weight_high=None if weights is None else weights.high,
        weight_low_before=None if weights is None else weights.low_before,
        weight_high_before=None if weights is None else weights.high_before,
        codebook=_codebook(node),
        range_before_tuning=_before_tuning(result, node),
        cause=cause,
        suggestion=suggestion,
        contribution=None if not whole or alone is None else alone / whole,
        logits_sqnr_db=None if alone is None else decibel(alone),
    )


def _cause(name: str, facts: Facts, effects: Effects, setting: Setting) -> tuple[str | None, str | None]:
    ratios = {kind: effects.noise.get((kind, name), 0.0) for kind in (WEIGHTS, OUTPUT)}
    kind = max(ratios, key=lambda k: ratios[k])
    if severity(ratios[kind]) < SHOWN:
        return None, None
    reason = reason_of(kind, name, ratios[kind], facts, setting)
    return reason.title, reason.suggestion


def _constant_bytes(node: Node) -> int:
    return sum(_stored_bytes(v) for v in node.operands if v.data is not None)


def _stored_bytes(value: Value) -> int:
    """Of a constant; of one with a codebook its indices and entries."""
    book = None if value.quant is None else value.quant.codebook
    return (value.type.size * value.dtype.bits + 7) // 8 if book is None else gather_bytes(book, value.type.size)


def _codebook(node: Node) -> np.ndarray | None:
    """The entries of the weights' codebook, in reals where there is one scale, else in steps."""
    params = None if node.weight is None else node.weight.quant
    if params is None or params.codebook is None:
        return None
    return params.codebook.entries * (np.float32(1) if params.per_channel else params.scale)


def _decibel(noise: Any, power: Any) -> float | None:
    signal, error = float(np.sum(power)), float(np.sum(noise))
    return decibel(error / signal) if signal > 0 else None


def _cosine(sums: ChannelSums) -> float | None:
    norm = float(np.sqrt(np.sum(sums.power) * sums.integer_power))
    return sums.dot / norm if norm > 0 else None


def _histogram(sums: ChannelSums) -> Histogram:
    assert sums.counts is not None
    edges = np.linspace(*sums.edges, _SHOWN_BINS + 1)
    return Histogram(counts=sums.counts.reshape(_SHOWN_BINS, BINS // _SHOWN_BINS).sum(axis=1), edges=edges)


def _before_tuning(result: ConversionResult, node: Node) -> tuple[float, float] | None:
    """The first range that the output was given, where a later pass chose another."""
    entries = list(result.trace.history.activations.get(node.output.name, {}).values())
    return (entries[0].low, entries[0].high) if len(entries) > 1 else None
