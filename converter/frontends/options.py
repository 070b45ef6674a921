"""What a user may say of a model besides where it is: sizes that the file leaves open, which part of it is meant."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from ir.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """How to read a model; every frontend takes what concerns it.

    Attributes:
      batch_size: axis 0 of every input; None: as the file has it, 1 where it leaves it open.
      input_shapes: whole shapes by input name, for axes that the file leaves open; "" is the only input.
      signature: which of several entry points; None: the only one, or the default one.
      input_arrays, output_arrays: tensors of a frozen GraphDef between which the network lies.
      output_nodes: layers or tensors to end at in place of the model's outputs.
      split_outputs: outputs that are joined of parts become an output for each part.
    """

    batch_size: int | None = None
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    signature: str | None = None
    input_arrays: tuple[str, ...] = ()
    output_arrays: tuple[str, ...] = ()
    output_nodes: tuple[str, ...] = ()
    split_outputs: bool = False

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
            raise OptionError(
                expected="a batch of 1 or more", found=str(self.batch_size), where="--batch_size", fix="pass 1"
            )

    def shapes_of(self, inputs: Sequence[str], also: Collection[str] = ()) -> dict[str, tuple[int, ...]]:
        """`input_shapes` of these inputs, the only one by its name; raises OptionError for a name of no input.

        `also` are other names that inputs go by.
        """
        given = dict(self.input_shapes)
        if "" in given and len(inputs) == 1:
            given[inputs[0]] = given.pop("")
        if unknown := sorted(set(given) - {*inputs, *also}):
            raise OptionError(
                expected=f"an input of {', '.join(inputs)}",
                found=", ".join(repr(name) for name in unknown),
                where="--input_shape",
                fix="name one of them",
            )
        return given


def parse_input_shapes(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """`name=1,224,224,3`, or only the numbers for the only input. Raises OptionError for anything else."""
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, _, numbers = text.rpartition("=")
        try:
            shape = tuple(int(part) for part in numbers.split(","))
        except ValueError:
            shape = ()
        if not shape or min(shape) < 1:
            raise OptionError(
                expected="name=1,224,224,3", found=text, where="--input_shape", fix="write every axis, the batch first"
            )
        shapes[name] = shape
    return shapes
