"""How an operator is declared: every fact that anyone needs of it, in one `OpDef`.

The families in `ir/ops/` make the table; reader, writer, emulator, verifier, passes, targets and the generated
documentation read it. No list of operator names stands anywhere else: ask a property.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ir.kernels import Kernel
from ir.profile import Profile, Runtime
from ir.types import DType, TensorType


class Role(enum.Enum):
    """What an operand is to its operator."""

    ACTIVATION = "activation"  # real numbers; quantized by its range (it may be a constant)
    WEIGHT = "weight"  # real constant, symmetric, may be per-channel along `channel_axis`
    BIAS = "bias"  # real constant, int32 at `S_in * S_w`
    PARAMETER = "parameter"  # real constant that only float graphs have (a batch norm's mean)
    GATE = "gate"  # real constant, symmetric, one scale: one of several weights that an operator has inside
    GATE_BIAS = "gate_bias"  # real constant, int32 at `S_in * S_w` of the gate that it belongs to
    STATE = "state"  # what an operator keeps from one invocation to the next: a variable, here what it begins with
    INDEX = "index"  # integers that are no reals: gather's indices


@dataclass(frozen=True, kw_only=True)
class Operand:
    """One operand of an operator, in the order of the graph's inputs.

    Attributes:
      channel_axis: of a weight (which always has both), the axis that counts output channels.
      input_axis: of a weight, the axis that counts input channels.
      per_channel: whether TFLite takes one scale per output channel.
      variadic: takes all remaining inputs (concatenation).
      weights: of the bias of a gate, the operand that holds the gate's weights.
      power_of_two: of a state that is stored in 16 bits, at a scale that is a power of two.
    """

    name: str
    role: Role = Role.ACTIVATION
    optional: bool = False
    variadic: bool = False
    channel_axis: int | None = None
    input_axis: int | None = None
    per_channel: bool = False
    weights: str = ""
    power_of_two: bool = False

    def __post_init__(self) -> None:
        if self.role is Role.WEIGHT and (self.channel_axis is None or self.input_axis is None):
            raise ValueError(f"the weight '{self.name}' does not say which of its axes count channels")


@dataclass(frozen=True)
class Fixed:
    """Output parameters that a kernel requires (softmax: 1/256 and -128)."""

    scale: float
    zero_point: int


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """How far the scales of operands may exceed that of the result, for kernels to run.

    Attributes:
      of: what is compared, made of the scales of the operands (of per-channel weights the largest).
      most: what it may be at most, in scales of the result, by bits of the stored activations; no limit at other widths.
      end: from where on kernels abort, or leave what is defined, so that nothing says what they make of it.
    """

    of: Callable[[Sequence[float]], float]
    most: Mapping[int, float]
    end: Mapping[int, float]

    def most_at(self, bits: int) -> float | None:
        """The most at a width of activations; fewer than 8 bits are stored in an int8."""
        return self.most.get(max(bits, 8))


@dataclass(frozen=True, kw_only=True)
class QuantRule:
    """How the operator is quantized, as data.

    Attributes:
      tied: names of operands and results that must share scale and zero point ("output" names the result).
      fixed: output parameters by activation bits, where the kernel requires certain ones.
      integer: whether an integer kernel exists at all; if not, `reason` says what to do.
      rewritten: a pass writes it with other operators, as far as the data allow it.
      by_table: no kernel computes it; of one tensor, it is a table of what `compute` makes of each of its numbers, which
        files look up (`passes.quantization.look_up`), so that it needs no `integer` and `kernels` are those of a table.
      kernels: the combinations of element types that some runtime computes, those to be preferred first.
      scales: the scales of its operands at which the kernel is exact, where it is not at all of them: at least the
        first, below the second.
      least_scale: the least of its first operand that its kernels of int8 take.
      ratio: how far the scales of its operands may exceed that of its result, where there is a limit.
      bias_steps: how far the scale of a bias may be from the product of those of data and weights, in scales of the
        result; None where kernels do not look.
    """

    tied: tuple[str, ...] = ()
    fixed: Mapping[int, Fixed] = field(default_factory=dict)
    integer: bool = True
    rewritten: bool = False
    by_table: bool = False
    reason: str = ""
    kernels: tuple[Kernel, ...] = ()
    scales: tuple[float, float] | None = None
    least_scale: float = 0.0
    ratio: Ratio | None = None
    bias_steps: float | None = None

    @property
    def activation_types(self) -> tuple[DType, ...]:
        """Element types that some runtime's kernels take for activations."""
        return tuple(dict.fromkeys(k.activation for k in self.kernels if k.right or k.coarse))


class Passage(enum.Enum):
    """What a positive per-channel scale on the input does at the output of an operator without weights."""

    NONE = "none"  # it does not pass
    FREE = "free"  # f(s x) = s f(x), channel by channel (ReLU, pad with zeros, pooling)
    BOUNDED = "bounded"  # the same while no channel reaches the saturation limit (ReLU6)


class LowEnd(enum.Enum):
    """What becomes of numbers far below the others of a tensor: masks, and what pads a maximum."""

    COUNTS = "counts"  # they are numbers like the others
    PASSES = "passes"  # they come out as they went in, or not at all (reshape, pad, a choice)
    ADDED = "added"  # what they are added to comes out as low
    SCALED = "scaled"  # a constant that is far below the others makes the result so (product)
    LOSES = "loses"  # the largest of a window wins (max pool)
    VANISHES = "vanishes"  # beside the largest of a row their exponentials are nothing (softmax)


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """The operator in a TFLite file: one table for the reader and the writer.

    Attributes:
      code: name in the schema's `BuiltinOperator`.
      options: name of the options table (`Conv2DOptions`), None where there is none. Its fields are the attributes
        in camelCase; enumerations are stored by value.
      renamed: attribute name -> field name, where it is not its camelCase; "" where the table has no such field.
      layout: the TFLite order of operands. A name that is an attribute is stored as a constant int32 operand.
        None: the graph's own order.
      intermediates: types of the tensors that a kernel looks parameters up in: `(input types, output types) -> types`.
      version: operator version by (attributes, input types, output types), as low as the types allow.
    """

    code: str
    options: str | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)
    layout: tuple[str, ...] | None = None
    intermediates: Callable[[Sequence[TensorType | None], Sequence[TensorType]], list[TensorType]] = lambda *_: []
    version: Callable[[Any, Sequence[TensorType | None], Sequence[TensorType]], int] = lambda *_: 1


def one_step(*_: Any) -> int:
    """For `OpDef.xnnpack_steps`: the delegate rounds once where the built-in kernel rounds twice, or other halves."""
    return 1


@dataclass(frozen=True, kw_only=True)
class Attributes:
    """Base of every operator's attributes: frozen, flat, validated when built.

    Raises ValueError where a number is below what its field declares (`at_least`), or not finite.
    """

    def __post_init__(self) -> None:
        for declared in dataclasses.fields(self):
            numbers = _numbers(getattr(self, declared.name))
            if any(isinstance(n, float) and not math.isfinite(n) for n in numbers):
                raise ValueError(f"{declared.name} {getattr(self, declared.name)}: finite numbers expected")
            least = declared.metadata.get("at_least")
            if least is not None and min(numbers, default=least) < least:
                raise ValueError(f"{declared.name} {getattr(self, declared.name)}: at least {least} expected")


def at_least(least: int, default: Any = 1) -> Any:
    """A field of attributes whose numbers, nested ones too, are not below `least`."""
    return field(default=default, metadata={"at_least": least})


def _numbers(value: Any) -> list[Any]:
    """The numbers in an attribute."""
    if isinstance(value, tuple):
        return [n for part in value for n in _numbers(part)]
    return [value] if isinstance(value, (int, float)) else []


@dataclass(frozen=True)
class IntegerCall:
    """What an integer kernel is given: NumPy arrays (any batch size), their types, and whose rounding law to follow."""

    attrs: Any
    inputs: list[np.ndarray | None]
    in_types: list[TensorType | None]
    out_types: list[TensorType]
    profile: Profile


@dataclass(frozen=True, kw_only=True)
class MatrixForm:
    """How an operator is a matrix product of its weights: `y[g, n] = W[g] x[g, n]` (see `ir.ops._matrix`).

    Attributes:
      split: `(attrs, weights as stored, channels of the input) -> [groups, out, columns]`.
      join: the inverse, given the stored shape.
      rows: `(attrs, weight shape, x, count, rng) -> [groups, n, columns]`, the inputs of at most `count` output
        positions drawn at random (all of them if there are no more).
    """

    split: Callable[[Any, np.ndarray, int], np.ndarray]
    join: Callable[[Any, np.ndarray, tuple[int, ...]], np.ndarray]
    rows: Callable[[Any, tuple[int, ...], np.ndarray, int, np.random.Generator], np.ndarray]


@dataclass(frozen=True, kw_only=True, eq=False)
class OpDef:
    """One operator.

    Attributes:
      name: in this project's words, snake_case.
      summary: one sentence for the generated table.
      infer: `(attrs, input types) -> output types` (shapes and element types; quantization is not inferred);
        raises ShapeError.
      compute: float semantics on `keras.ops`: `(attrs, *inputs) -> output or tuple of outputs`. Must work for any
        size of axis 0 where the operator keeps axis 0 apart (a batch).
      traced: what states become step by step, by their places among the operands: `(attrs, *inputs) -> tensors`.
      integer: exact integer semantics on NumPy: `(IntegerCall) -> list of outputs`.
      encoding: None for operators that only float graphs have (batch norm).
      passage: whether a per-channel scale (on the last axis) passes: `(attrs, input types) -> Passage`.
      matrix: how it is a matrix product of its weights, None if it is not.
      low_end: what becomes of numbers far below the others.
      pointwise: its result at a place depends on its operands there, and on nothing else.
      jumps: it gives numbers far apart for some that are as near as you like (floor, round).
      rearranges: it returns its first input's elements, all of them once, in another shape.
      reorders: it returns its first input's elements, all of them once, in another order.
      most_operands: how many operands a runtime takes at most, of those that take fewer than a file may hold.
      most_axes: how many axes a runtime's kernel takes at most, of those that take fewer than a file may hold;
        `most_axes_apart`: where operands have other shapes than one another.
      overwrites: positions of operands in whose memory TFLite's kernels may put the result (`ir.overwriting`).
      pads_zeros: it puts zeros beside the data, which a shift of the data would not move.
      is_conversion: it changes how numbers are stored, not what they are (quantize, dequantize).
      is_identity: whether the node returns its first input unchanged: `(attrs, input types) -> bool`.
      known: what its result is whatever the data are, as long as they are finite: `(attrs, operands) -> an array, the
        operand that it returns, or None`. Operands are values of the graph. That of constants alone is known anyway.
      misfit: what does not fit of operands that `infer` does not look at, since they are known by their places:
        `(attrs, input types, None where one is absent) -> str`, "" if all do.
      as_read: `(attrs, input types, output types) -> attrs` where a file's options do not say all: for any size of
        axis 0 where the file may spell out a batch of 1 (slice), by the tensors' types where the options may be
        empty (cast). The reader calls it.
      limit: where BOUNDED saturates (ReLU6: 6.0).
      xnnpack_steps: `(attrs, input types, output types) -> int`, how many steps of scale XNNPACK's 8-bit results may be
        off those of the built-in kernel, because it rounds otherwise; none where it equals that kernel, or leaves the
        operator to it. Measured with LiteRT 2.3 (`runtime_tests/xnnpack_test.py`).
      fuses_as: for an activation, how it is fused into the operator before it; None if it cannot be.
    """

    name: str
    summary: str
    operands: tuple[Operand, ...]
    attributes: type[Attributes] = Attributes
    results: int | None = 1  # None: as many as the attributes say (split)
    infer: Callable[[Any, Sequence[TensorType]], list[TensorType]]
    compute: Callable[..., Any]
    traced: Callable[..., dict[int, Any]] | None = None
    integer: Callable[[IntegerCall], list[np.ndarray]] | None = None
    quantization: QuantRule = field(default_factory=QuantRule)
    encoding: Encoding | None = None
    passage: Callable[[Any, Sequence[TensorType]], Passage] = lambda *_: Passage.NONE
    low_end: LowEnd = LowEnd.COUNTS
    pointwise: bool = False
    jumps: bool = False
    rearranges: bool = False
    reorders: bool = False
    most_operands: Mapping[Runtime, int] = field(default_factory=dict)
    most_axes: Mapping[Runtime, int] = field(default_factory=dict)
    most_axes_apart: Mapping[Runtime, int] = field(default_factory=dict)
    overwrites: tuple[int, ...] = ()
    pads_zeros: bool = False
    is_conversion: bool = False
    matrix: MatrixForm | None = None
    is_identity: Callable[[Any, Sequence[TensorType]], bool] = lambda *_: False
    known: Callable[[Any, Sequence[Any]], Any] = lambda *_: None
    misfit: Callable[[Any, Sequence[TensorType | None]], str] = lambda *_: ""
    as_read: Callable[[Any, Sequence[TensorType | None], Sequence[TensorType]], Any] = lambda attrs, *_: attrs
    limit: float | None = None
    xnnpack_steps: Callable[[Any, Sequence[TensorType | None], Sequence[TensorType]], int] = lambda *_: 0
    fuses_as: FusedActivation | None = None

    @property
    def weight_index(self) -> int | None:
        """Position of the weight among the inputs, None if the operator has none."""
        return self._first(Role.WEIGHT)

    @property
    def bias_index(self) -> int | None:
        """Position of the bias among the inputs, None if the operator has none."""
        return self._first(Role.BIAS)

    @property
    def weight_operand(self) -> Operand:
        """The declaration of the weight; only for operators that have one."""
        assert self.weight_index is not None, f"{self.name} has no weights"
        return self.operands[self.weight_index]

    @property
    def takes_fused_activation(self) -> bool:
        """Whether a following activation can be fused into this operator."""
        return "activation" in self.attributes.__dataclass_fields__

    def axes_limits(self, shapes: Sequence[tuple[int, ...]]) -> Mapping[Runtime, int]:
        """How many axes runtimes take at most, of operands of these shapes."""
        return {**(self.most_axes_apart if len(set(shapes)) > 1 else {}), **self.most_axes}

    def operand(self, index: int) -> Operand:
        """The declaration of input `index` (a variadic operand covers all that follow it)."""
        return self.operands[min(index, len(self.operands) - 1)]

    def _first(self, role: Role) -> int | None:
        return next((i for i, o in enumerate(self.operands) if o.role is role), None)


class FusedActivation(enum.IntEnum):
    """Activation inside another operator; values of the schema's `ActivationFunctionType`."""

    NONE = 0
    RELU = 1
    RELU_N1_TO_1 = 2
    RELU6 = 3

    @property
    def bounds(self) -> tuple[float, float]:
        """The reals between which the result is clamped."""
        inf = float("inf")
        return {0: (-inf, inf), 1: (0.0, inf), 2: (-1.0, 1.0), 3: (0.0, 6.0)}[int(self)]


class ShapeError(ValueError):
    """The operands do not fit together; the message says which and how."""
