"""An invented report with everything in it that a page can show, and names that try to be markup."""

from __future__ import annotations

from typing import Any

import numpy as np

from converter.analysis.table import (
    Analysis,
    Cause,
    Histogram,
    LayerAnalysis,
    PassChange,
    WorstInput,
)
from converter.mixed.budget import Budget
from converter.mixed.candidates import Group
from converter.mixed.choice import Choice, Point
from converter.profiling import OperatorTime
from converter.recording import History, Threshold
from converter.report.content import Content
from converter.report.network import Row
from converter.report.speed import Speed
from converter.targets.rules import CheckReport, Verdict
from converter.widths import LayerWidths
from passes.quantization.bits import BitsPlan

HOSTILE = "<script>document.title = 'stolen'</script>"
BREAKING = "</svg></style></script><img src=x onerror=\"document.title='stolen'\">'\"&amp;{{ 7 * 7 }}"


def invented_layer(name: str, seed: int, **fields: Any) -> LayerAnalysis:
    """A layer with every field filled, from a seed."""
    rng = np.random.default_rng(seed)
    values = np.maximum(rng.normal(0.4, 1.0, 5000), 0)
    counts, edges = np.histogram(values, 64)
    low, high = -rng.uniform(0.1, 1, 24), rng.uniform(0.1, 1, 24)
    given: dict[str, Any] = {
        "operator": "CONV_2D",
        "layers": (name, f"{name}/relu"),
        "output": name,
        "shape": (1, 14, 14, 24),
        "sqnr_alone_db": float(rng.uniform(25, 45)),
        "sqnr_db": float(rng.uniform(8, 30)),
        "cosine": 0.9991,
        "clipped": 0.0004,
        "scale": 0.0123,
        "zero_point": -128,
        "range": (0.0, 3.1),
        "float_range": (0.0, float(values.max())),
        "histogram": Histogram(counts=counts, edges=edges),
        "weight_bytes": 12_000,
        "share_of_size": 0.12,
        "weight_low": low,
        "weight_high": high,
        "weight_low_before": low * 2,
        "weight_high_before": high * rng.uniform(0.2, 3, 24),
        "range_before_tuning": (0.0, 3.6),
        "cause": "one output channel has weights 12 times as large as the others",
        "suggestion": "--granularity=per_channel",
    }
    return LayerAnalysis(name=name, **{**given, **fields})


def invented_widths(name: str, bits: int) -> LayerWidths:
    """A layer's, of 8000 weights."""
    size = 8000 * bits // 8
    return LayerWidths(
        layer=name,
        operator="CONV_2D",
        activation_bits=8,
        weight_bits=bits,
        storage=f"INT{bits}",
        size_bytes=size,
        saved_bytes=8000 - size,
    )


def invented_choice(names: tuple[str, ...]) -> Choice:
    """Of 8 and 4 bits for each layer."""
    groups = tuple(
        Group(layers=(name,), elements=8000, multiplications=8000, read_bits=8, bits=(8, 4)) for name in names
    )
    every, half = len(names), len(names) // 2
    choices = {"4 bits": (4,) * every, "": (8,) + (4,) * (every - 1), "chosen": (8,) * half + (4,) * (every - half)}
    points = [
        Point(
            bits=bits,
            size_bytes=sum(bits) * 1000,
            mean_bits=sum(bits) / every,
            predicted=bits.count(4) / 100 + 0.001,
            measured=bits.count(4) / 90 + 0.002 if label else None,
            label=label,
        )
        for label, bits in {**choices, "8 bits": (8,) * every}.items()
    ]
    return Choice(
        budget=Budget(mean_bits=6.0),
        plan=BitsPlan(weight_bits=4),
        groups=groups,
        losses=tuple({8: 0.0002, 4: 0.0102} for _ in names),
        points=tuple(points),
    )


def invented(*, names: tuple[str, ...] = ("stem", HOSTILE, BREAKING, "block/add", "logits")) -> Content:
    """A network of five layers with a branch, its analysis and all the rest."""
    layers = tuple(invented_layer(name, seed) for seed, name in enumerate(names))
    verdicts = tuple(
        Verdict(
            index=i, name="CONV_2D", layer=name, mapped=i > 0, status="CPU", reason=HOSTILE if not i else "", fix="wait"
        )
        for i, name in enumerate(names)
    )
    return Content(
        title=f"{HOSTILE}.tflite",
        analysis=_analysis(layers),
        headline={
            "samples": 100,
            "float_accuracy": {"value": 0.97, "low": 0.915, "high": 0.99},
            "integer_accuracy": {"value": 0.96, "low": 0.902, "high": 0.984},
            "agreement": {"value": 0.98, "low": 0.93, "high": 0.994},
            "sqnr_db": 27.4,
        },
        choice=invented_choice(names),
        rows=_rows(layers),
        operators={"CONV_2D": 5},
        float_operators=(BREAKING,),
        widths=tuple(invented_widths(name, 4 if i else 8) for i, name in enumerate(names)),
        warnings=(HOSTILE,),
        about=(("model", HOSTILE), ("seed", "0"), ("command", BREAKING)),
        classes=(HOSTILE, "one", "two"),
        proof=("tflite-runtime/builtin equal", HOSTILE),
        check=CheckReport(target="edgetpu", verdicts=verdicts, notes=(HOSTILE,), costs=(BREAKING,)),
        times=tuple(
            OperatorTime(index=i, name="CONV_2D", layer=name, median_ms=0.1 * i if i else None)
            for i, name in enumerate(names)
        ),
        latencies=(
            (
                Speed(size_bytes=615_792, median_ms=0.67, p90_ms=0.7, runs=20, runtime="ai-edge-litert/xnnpack"),
                Speed(size_bytes=1_624_688, median_ms=0.9, p90_ms=1.0, runs=20, runtime="ai-edge-litert/xnnpack"),
            ),
            (
                Speed(size_bytes=615_792, median_ms=3.5, p90_ms=3.7, runs=20, runtime="tflite-runtime/builtin"),
                Speed(size_bytes=1_624_688, runtime="tflite-runtime/builtin", problem=HOSTILE),
            ),
        ),
    )


def _rows(layers: tuple[LayerAnalysis, ...]) -> tuple[Row, ...]:
    """The input and five layers, of which the last but one joins two."""
    image = Row(name="image", operator="input", details=_DETAILS, weights="", sources=())
    return (
        image,
        *(
            Row(
                name=layer.name,
                operator="CONV_2D",
                details=_DETAILS,
                weights=f"weights int8 of {layer.name}",
                sources=sources,
                sqnr_db=layer.sqnr_db,
                size_share=0.2,
                time_share=0.05,
                is_output=layer is layers[-1],
            )
            for layer, sources in zip(layers, ((0,), (1,), (2,), (1, 3), (4,)), strict=True)
        ),
    )


_DETAILS = "int8 1 × 14 × 14 × 24, scale 0.0123, zero point -128"


def _analysis(layers: tuple[LayerAnalysis, ...]) -> Analysis:
    top = ((7, 0.62), (2, 0.31), (0, 0.02))
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    second = layers[1].name
    return Analysis(
        layers=layers,
        causes=(
            Cause(severity=0.9, title="Outlier channel", explanation=HOSTILE, suggestion=BREAKING, where=second),
            Cause(severity=0.5, title="Another channel", explanation="Too.", suggestion=BREAKING, where=layers[0].name),
            Cause(severity=0.2, title="Few samples", explanation="12 samples.", suggestion="Give 100.", where="input"),
        ),
        worst_inputs=(
            WorstInput(
                index=3,
                float_top=top,
                integer_top=top[::-1],
                sqnr_db=11.0,
                name=f"cats/{HOSTILE}.png",
                label=7,
                image=picture,
            ),
            WorstInput(index=5, float_top=(), integer_top=(), sqnr_db=14.0),
        ),
        summary={"samples": 32, "pipeline": "fold_batch_norm,calibrate,quantize"},
        passes=(
            PassChange(name="fold_batch_norm", changed=(HOSTILE, "stem"), skipped=((BREAKING, HOSTILE),), seconds=0.2),
            PassChange(name="calibrate", notes=(HOSTILE,), seconds=1.5),
        ),
        history=History(
            activations={
                "stem": {"calibrate": Threshold(low=0, high=3.6), BREAKING: Threshold(low=0, high=3.1, scale=0.0122)}
            }
        ),
    )
