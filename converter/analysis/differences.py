"""What differs between two .tflite files: operators added, removed and changed, parameters, weights.

Operators are aligned as the lines of a text are, by their code and the shape of their result, then by their code;
where both have one in the same place, results and constants are compared, in reals.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from converter.analysis.contents import quantization
from converter.tflite.codec import BY_CODE, layout
from converter.tflite.constants import MISFITS, constant_array
from converter.tflite.reader import tensor_type
from converter.tflite.records import ModelFile, OperatorRecord, SubgraphRecord, TensorRecord
from ir.errors import ConversionError
from passes.measuring.decibels import decibels

_MOST_COMPARED = 1 << 26  # elements of a constant: a sparse one may stand for more than memory holds
_MOST_ALIGNED = 3000  # operators: the alignment may take the square of them, and files are not trusted


@dataclass(frozen=True, kw_only=True)
class OperatorChange:
    """The same place of two files: `index` in each, what differs in words, and the figures.

    Attributes:
      weights_db: how close the constants are in reals (`10 log10(sum a^2 / sum (a - b)^2)`), the worst of them.
    """

    index: tuple[int, int]
    name: str
    layer: str
    changes: tuple[str, ...]
    weights_db: float | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "index": list(self.index),
            "name": self.name,
            "layer": self.layer,
            "changes": list(self.changes),
            "weights_db": self.weights_db,
        }


@dataclass(frozen=True, kw_only=True)
class Difference:
    """From file `a` to file `b`; `added` and `removed` are `(index, operator, layer)`."""

    size_bytes: tuple[int, int]
    operators: tuple[int, int]
    same: int
    changed: tuple[OperatorChange, ...] = ()
    added: tuple[tuple[int, str, str], ...] = ()
    removed: tuple[tuple[int, str, str], ...] = ()
    interface: tuple[str, ...] = field(default=())

    def as_json(self) -> dict[str, Any]:
        def listed(entries: Sequence[tuple[int, str, str]]) -> list[dict[str, Any]]:
            return [{"index": i, "name": name, "layer": layer} for i, name, layer in entries]

        return {
            "size_bytes": list(self.size_bytes),
            "operators": list(self.operators),
            "same": self.same,
            "changed": [c.as_json() for c in self.changed],
            "added": listed(self.added),
            "removed": listed(self.removed),
            "interface": list(self.interface),
        }


def compare_files(a: ModelFile, b: ModelFile) -> Difference:
    """The main subgraphs of two files, operator by operator."""
    pairs = _aligned(a.main, b.main)
    found = [c for i, j in pairs if (c := _change(a.main, b.main, i, j)) is not None]
    here, there = {i for i, _ in pairs}, {j for _, j in pairs}
    return Difference(
        size_bytes=(a.size_bytes, b.size_bytes),
        operators=(len(a.main.operators), len(b.main.operators)),
        same=len(pairs) - len(found),
        changed=tuple(found),
        added=tuple(_place(b.main, j) for j in range(len(b.main.operators)) if j not in there),
        removed=tuple(_place(a.main, i) for i in range(len(a.main.operators)) if i not in here),
        interface=tuple(_interface(a.main, b.main)),
    )


def _place(graph: SubgraphRecord, index: int) -> tuple[int, str, str]:
    op = graph.operators[index]
    return index, op.code, graph.tensors[op.outputs[0]].name if op.outputs else ""


def _key(graph: SubgraphRecord, op: OperatorRecord) -> tuple[str, tuple[int, ...]]:
    return op.code, graph.tensors[op.outputs[0]].shape if op.outputs else ()


def _aligned(a: SubgraphRecord, b: SubgraphRecord) -> list[tuple[int, int]]:
    """Pairs of operators in the order of both: of the same code and result shape; between these, of the same code."""
    left, right = ([_key(g, op) for op in g.operators] for g in (a, b))
    if max(len(left), len(right)) > _MOST_ALIGNED:
        return [(i, i) for i, (x, y) in enumerate(zip(left, right, strict=False)) if x[0] == y[0]]
    pairs: list[tuple[int, int]] = []
    for tag, i, i_end, j, j_end in difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        if tag == "equal":
            pairs += zip(range(i, i_end), range(j, j_end), strict=True)
        elif tag == "replace":
            codes = [x[0] for x in left[i:i_end]], [y[0] for y in right[j:j_end]]
            for block in difflib.SequenceMatcher(None, *codes, autojunk=False).get_matching_blocks():
                pairs += [(i + block.a + k, j + block.b + k) for k in range(block.size)]
    return pairs


def _change(a: SubgraphRecord, b: SubgraphRecord, i: int, j: int) -> OperatorChange | None:
    left, right = a.operators[i], b.operators[j]
    changes: list[str] = []
    if left.version != right.version:
        changes.append(f"version {left.version} -> {right.version}")
    for k, (x, y) in enumerate(zip(left.outputs, right.outputs, strict=False)):
        shapes = a.tensors[x].shape, b.tensors[y].shape
        changes += [f"shape {list(shapes[0])} -> {list(shapes[1])}"] if shapes[0] != shapes[1] else []
        changes += _parameters(a.tensors[x], b.tensors[y], f"result {k}" if k else "result")
    if len(left.inputs) != len(right.inputs):
        changes.append(f"{len(left.inputs)} -> {len(right.inputs)} operands")
    closeness: list[float] = []
    for k, (x, y) in enumerate(zip(left.inputs, right.inputs, strict=False)):
        if x >= 0 and y >= 0:
            changes += _constants(a.tensors[x], b.tensors[y], _operand(left.code, k), closeness)
        elif x != y and min(x, y) < 0:
            changes.append(f"{_operand(left.code, k)} {'added' if x < 0 else 'removed'}")
    if not changes:
        return None
    _, name, layer = _place(a, i)
    worst = min(closeness) if closeness else None
    return OperatorChange(index=(i, j), name=name, layer=layer, changes=tuple(changes), weights_db=worst)


def _operand(code: str, position: int) -> str:
    """What an operand is called."""
    op = BY_CODE.get(code)
    names = () if op is None else layout(op) or tuple(o.name for o in op.operands)
    return names[position] if position < len(names) else f"operand {position}"


def _parameters(x: TensorRecord, y: TensorRecord, what: str) -> list[str]:
    changes = []
    if x.type_name != y.type_name:
        changes.append(f"{what} {x.type_name} -> {y.type_name}")
    p, q = quantization(x), quantization(y)
    if p.get("scales") != q.get("scales"):
        changes.append(f"{what}: {p.get('scales') or 1} -> {q.get('scales') or 1} scales")
    elif not np.array_equal(x.scale, y.scale):
        changes.append(f"{what}: scale {_scale_text(p['scale'])} -> {_scale_text(q['scale'])}")
    if not np.array_equal(x.zero_point, y.zero_point) and p["zero_point"] != q["zero_point"]:
        changes.append(f"{what}: zero point {p['zero_point']} -> {q['zero_point']}")
    return changes


def _scale_text(scale: Any) -> str:
    if isinstance(scale, list):
        return "..".join("?" if s is None else f"{s:.4g}" for s in scale)
    return "none" if scale is None else f"{scale:.6g}"


def _constants(x: TensorRecord, y: TensorRecord, what: str, closeness: list[float]) -> list[str]:
    if x.data is None or y.data is None:
        return [] if (x.data is None) == (y.data is None) else [f"{what} is a constant in one of them only"]
    changes = _parameters(x, y, what)
    if x.shape != y.shape:
        return [*changes, f"{what}: shape {list(x.shape)} -> {list(y.shape)}"]
    if not changes and np.array_equal(x.data, y.data):
        return []
    a, b = _reals(x), _reals(y)
    if a is None or b is None:
        return [*changes, f"{what}: other bytes"]
    noise, signal = float(np.square(a - b).sum()), float(np.square(a).sum())
    if not noise:
        return changes
    if signal > 0 and np.isfinite(noise) and np.isfinite(signal):
        closeness.append(float(decibels(signal, noise)))
        return [*changes, f"{what}: values differ, {closeness[-1]:.1f} dB"]
    return [*changes, f"{what}: values differ"]


def _reals(record: TensorRecord) -> np.ndarray | None:
    """A constant as float64, None where it cannot be read (or is no number)."""
    if math.prod(record.shape) > _MOST_COMPARED:
        return None
    try:
        data = constant_array(record, "inspect").astype(np.float64)
        quant = tensor_type(record, "inspect").quant
    except (ConversionError, *MISFITS):
        return None
    if quant is None:
        return data
    scale, zero_point = quant.shaped(data.ndim)
    return (data - zero_point) * scale.astype(np.float64)


def _interface(a: SubgraphRecord, b: SubgraphRecord) -> list[str]:
    changes = []
    for kind, left, right in (("input", a.inputs, b.inputs), ("output", a.outputs, b.outputs)):
        if len(left) != len(right):
            changes.append(f"{len(left)} -> {len(right)} {kind}s")
        for x, y in zip(left, right, strict=False):
            s, t = a.tensors[x], b.tensors[y]
            name = f"{kind} '{s.name}'"
            if s.name != t.name:
                changes.append(f"{name} is called '{t.name}'")
            if s.shape != t.shape:
                changes.append(f"{name}: shape {list(s.shape)} -> {list(t.shape)}")
            changes += _parameters(s, t, name)
    return changes
