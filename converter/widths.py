"""The width of every layer of a file: of its activations and weights, how they are stored, and what that saves.

A file says the element types of its tensors. That 7 bits are used of an int8 it does not say, so `convert` notes widths
below those of their containers in the file's metadata, by tensor; without that note a tensor is as wide as its type.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from converter.targets.site import Site, sites
from converter.tflite.constants import constant_array
from converter.tflite.packing import CodedTable, Packing, coded_tables, packings
from converter.tflite.reader import tensor_type
from converter.tflite.records import ModelFile, TensorRecord
from ir.errors import ModelError
from ir.graph import Graph
from ir.types import DType

_MOST_EXPANSION = 64  # times its own size that weights of a file may be: files are not trusted
NOTE = "bits"  # in the metadata of the name "intact"
_IN_INT8 = {"INT2": 8, "INT4": 8, "INT8": 8, "UINT8": 8, "INT16": 8, "INT32": 32, "INT64": 32}  # bits, by type now


@dataclass(frozen=True, kw_only=True)
class LayerWidths:
    """One operator.

    Attributes:
      layer: the name of its first result; `operator`: TFLite's word.
      activation_bits: of that result, None where it holds no quantized numbers.
      weight_bits, storage: of its weights, and the element type that stores them; None without.
      packed: how the file holds weights that it unpacks at every inference (`256 x 4 gather`: a codebook of 256 blocks of 4
        weights); None for those that lie there as they are.
      zeros: the share of its weights that are zero, once they are unpacked; None without quantized weights.
      size_bytes: of its weights, bias and other quantized constants in the file.
      saved_bytes: how much less that is than with int8 weights and int32 biases.
    """

    layer: str
    operator: str
    activation_bits: int | None
    weight_bits: int | None
    storage: str | None
    size_bytes: int
    saved_bytes: int
    packed: str | None = None
    zeros: float | None = None

    def as_json(self) -> dict[str, Any]:
        """The documented keys of `widths` in `convert --json`, and of the operators in `inspect --json`."""
        return {
            "layer": self.layer,
            "operator": self.operator,
            "activation_bits": self.activation_bits,
            "weight_bits": self.weight_bits,
            "storage": self.storage,
            "packed": self.packed,
            "zeros": None if self.zeros is None else round(self.zeros, 4),
            "size_bytes": self.size_bytes,
            "saved_bytes": self.saved_bytes,
        }

    @property
    def text(self) -> str:
        """`4 x 8` for 4-bit weights and 8-bit activations, `8` without weights, "" where nothing is quantized."""
        bits = " x ".join(str(bits) for bits in (self.weight_bits, self.activation_bits) if bits is not None)
        return f"{bits} ({self.packed})" if self.packed else bits


def note_of(annotated: Graph | None, emitted: Graph) -> dict[str, int]:
    """What the metadata say: the widths of tensors that are narrower than what stores them, by name.

    `annotated` is the float graph with its parameters, before it was lowered; None says nothing.
    """
    if annotated is None:
        return {}
    stored = {v.name: v.dtype.bits for v in emitted.values() if not v.dtype.is_float}
    widths = {v.name: v.quant.bits for v in annotated.values() if v.quant is not None}
    return {name: bits for name, bits in widths.items() if bits < stored.get(name, 0)}


def layer_widths(model: ModelFile) -> tuple[LayerWidths, ...]:
    """Every operator of a file's first subgraph, in its order."""
    noted, packed, tables = _noted(model), packings(model), coded_tables(model.main)
    unpacking = {position for packing in packed.values() for position in packing.operators}
    counted = {i for packing in packed.values() for i in packing.stored}
    found = []
    for site in sites(model):
        own = [i for i in dict.fromkeys(site.record.inputs) if i >= 0 and i not in counted]
        counted.update(own)
        constants = [t for i in own if _is_quantized(t := site.graph.tensors[i]) and t.data is not None]
        size = sum(t.data.size for t in constants if t.data is not None)
        layer = _of_site(site, noted, int(size), sum(map(_size_in_int8, constants)))
        layer = dataclasses.replace(layer, zeros=_zeros(site, packed, _MOST_EXPANSION * model.size_bytes))
        packings_read = [packed[i] for i in own if i in packed]
        if site.index in unpacking:
            layer = dataclasses.replace(layer, activation_bits=None)
        if site.index in tables:
            layer = _with_table(layer, tables[site.index])
        found.append(_with_packing(layer, packings_read[0]) if packings_read else layer)
    return tuple(found)


def _with_packing(layer: LayerWidths, packing: Packing) -> LayerWidths:
    """A layer whose weights are unpacked: what holds them counts as its own."""
    dense = _size_in_int8(packing.record)
    return dataclasses.replace(
        layer,
        packed=packing.described,
        size_bytes=layer.size_bytes + packing.size_bytes,
        saved_bytes=layer.saved_bytes + dense - packing.size_bytes,
    )


def _with_table(layer: LayerWidths, table: CodedTable) -> LayerWidths:
    """What gathers the entries of a table: the indices count as its own, too."""
    saved = table.dense_bytes - table.size_bytes
    return dataclasses.replace(layer, packed=table.described, size_bytes=table.size_bytes, saved_bytes=saved)


def _zeros(site: Site, packed: Mapping[int, Packing], most: int) -> float | None:
    """The share of an operator's weights that are zero; None where they are no numbers, or too many to look at."""
    weights = site.weights()
    if weights is None or not _is_quantized(weights) or math.prod(weights.shape) > most:
        return None
    zero = int(weights.zero_point[0]) if weights.zero_point.size else 0
    found = next((packed[i] for i in site.record.inputs if i in packed), None)
    try:
        if found is not None:
            q, _ = found.unpack(tensor_type(weights, "").params())
        else:
            q = constant_array(weights, "")
    except ModelError:
        return None
    return float((q == zero).mean()) if q.size else None


def _of_site(site: Site, noted: Mapping[str, int], size: int, size_in_int8: int) -> LayerWidths:
    weights = site.weights()
    result = next(iter(site.outputs), None)
    return LayerWidths(
        layer=site.layer,
        operator=site.record.code,
        activation_bits=None if result is None else _bits(result, noted),
        weight_bits=None if weights is None else _bits(weights, noted),
        storage=None if weights is None else weights.type_name,
        size_bytes=size,
        saved_bytes=size_in_int8 - size,
    )


def _noted(model: ModelFile) -> dict[str, int]:
    """The note of a file; empty for a file of others, or where it is none of ours."""
    try:
        note = json.loads(model.metadata.get("intact", b"{}"))[NOTE]
    except (ValueError, KeyError, TypeError):
        return {}
    pairs = note.items() if isinstance(note, dict) else ()
    return {name: bits for name, bits in pairs if isinstance(bits, int) and 2 <= bits <= 16}


def _is_quantized(tensor: TensorRecord) -> bool:
    return bool(tensor.scale.size) and tensor.type_name in _IN_INT8


def _bits(tensor: TensorRecord, noted: Mapping[str, int]) -> int | None:
    if not _is_quantized(tensor):
        return None
    container = DType[tensor.type_name].bits
    return min(noted.get(tensor.name, container), container)


def _size_in_int8(tensor: TensorRecord) -> int:
    return math.prod(tensor.shape) * _IN_INT8[tensor.type_name] // 8


def sentences(layers: Sequence[LayerWidths]) -> list[str]:
    """Sentences on widths and sizes; none where all is int8."""
    weights = Counter(layer.weight_bits for layer in layers if layer.weight_bits is not None)
    activations = Counter(layer.activation_bits for layer in layers if layer.activation_bits is not None)
    packed = sum(layer.packed is not None and layer.weight_bits is not None for layer in layers)
    tables = sum(layer.packed is not None for layer in layers) - packed
    if set(weights) | set(activations) <= {8} and not packed + tables:
        return []
    parts = [
        f"{what} of {_counted(counts)}"
        for what, counts in (("weights", weights), ("activations", activations))
        if counts
    ]
    if packed:
        parts.append(f"weights unpacked at every inference in {packed} layer{'s' if packed > 1 else ''}")
    if tables:
        parts.append(f"rows of {tables} table{'s' if tables > 1 else ''} unpacked where they are read")
    saved = sum(layer.saved_bytes for layer in layers)
    sentence = f"constants take {abs(saved) / 1e3:.1f} kB {'less' if saved >= 0 else 'more'} than in int8"
    return [f"{'; '.join(parts)}; {sentence}"]


def _counted(counts: Mapping[int, int]) -> str:
    """`8 bits in 2 layers, 4 in 13`."""
    (first, count), *rest = sorted(counts.items(), reverse=True)
    return ", ".join([f"{first} bits in {count} layer{'s' if count > 1 else ''}", *(f"{b} in {n}" for b, n in rest)])
