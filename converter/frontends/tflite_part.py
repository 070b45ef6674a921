"""Which part of a `.tflite` file is meant, and how large it is: signature, ends, operators between them, open sizes."""

from __future__ import annotations

from collections import defaultdict

from converter.frontends.options import ModelOptions
from converter.tflite.records import ModelFile, Signature, SubgraphRecord, TensorRecord
from converter.tflite.variables import ASSIGN, handles
from ir.errors import ModelError, OptionError

AGAIN = "write or download the file again"


def file_error(file: ModelFile, expected: str, found: str, fix: str, where: str = "") -> ModelError:
    """What is wrong with a file, and where."""
    return ModelError(expected=expected, found=found, where=f"{file.path}{', ' if where else ''}{where}", fix=fix)


def signature_of(file: ModelFile, options: ModelOptions) -> Signature | None:
    """The entry point that is meant, None for a file without. Raises OptionError if there is none of that name."""
    signatures = {s.key: s for s in file.signatures}
    if any(not 0 <= s.subgraph < len(file.subgraphs) for s in file.signatures):
        raise file_error(file, "signatures of its subgraphs", "one of a subgraph that is not there", AGAIN)
    if options.signature is not None:
        if options.signature not in signatures:
            raise OptionError(
                expected=f"a signature of {', '.join(signatures) or 'none: the file has no signatures'}",
                found=options.signature,
                where="--signature",
                fix="choose one of them, or leave it out",
            )
        return signatures[options.signature]
    chosen = [s for s in file.signatures if s.subgraph == 0] or list(file.signatures)
    return signatures.get("serving_default") or (chosen[0] if chosen else None)


def outputs_of(
    file: ModelFile, subgraph: SubgraphRecord, signature: Signature | None, options: ModelOptions
) -> tuple[int, ...]:
    """The tensors to end at."""
    if not options.output_nodes:
        return subgraph.outputs
    by_name = {record.name: i for i, record in enumerate(subgraph.tensors)}
    by_name.update({} if signature is None else signature.outputs)
    missing = [name for name in options.output_nodes if name not in by_name]
    if missing:
        computed = [subgraph.tensors[i].name for op in subgraph.operators for i in op.outputs]
        raise OptionError(
            expected=f"tensors of {file.path}, such as {', '.join(computed[-3:])}",
            found=", ".join(missing),
            where="--output_nodes",
            fix="name tensors that the file's operators compute",
        )
    return tuple(by_name[name] for name in options.output_nodes)


def reachable(file: ModelFile, subgraph: SubgraphRecord, outputs: tuple[int, ...]) -> list[int]:
    """Positions of the operators that these outputs depend on, in the file's order; with a variable, what is assigned to it."""
    makers: dict[int, int] = {}
    named, assigns = handles(subgraph), defaultdict(list)
    for position, operator in enumerate(subgraph.operators):
        makers.update(dict.fromkeys(operator.outputs, position))
        if operator.code == ASSIGN:
            assigns[named.get(operator.inputs[0])].append(position)
    requested: set[int] = set()
    stack = [makers[i] for i in outputs if i in makers]
    while stack:
        position = stack.pop()
        if position not in requested:
            requested.add(position)
            stack.extend(makers[i] for i in subgraph.operators[position].inputs if i in makers)
            read = named.get(next(iter(subgraph.operators[position].outputs), -1))
            stack.extend(assigns[read] if read is not None else ())
    return sorted(requested)


def input_shapes(
    file: ModelFile, subgraph: SubgraphRecord, signature: Signature | None, options: ModelOptions
) -> dict[int, tuple[int, ...]]:
    """The shape of every input. Raises ModelError naming an input that leaves open what the options do not say."""
    names = input_names(subgraph, signature)
    given = options.shapes_of(list(names.values()), also={subgraph.tensors[i].name for i in names})
    shapes = {}
    for index, name in names.items():
        record = subgraph.tensors[index]
        shapes[index] = _one_shape(file, record, name, given.get(name) or given.get(record.name), options.batch_size)
    return shapes


def _one_shape(
    file: ModelFile, record: TensorRecord, name: str, given: tuple[int, ...] | None, batch: int | None
) -> tuple[int, ...]:
    known = record.shape_signature if len(record.shape_signature) == len(record.shape) else record.shape
    if given is not None:
        if len(given) != len(known) or any(k not in (-1, g) for k, g in zip(known, given, strict=True)):
            raise OptionError(
                expected=f"a shape that fits {_shown(known)}",
                found=_shown(given),
                where=f"--input_shape {name}",
                fix="keep the sizes that the file fixes",
            )
        return given
    if -1 in known[1:] or 0 in known:
        example = ",".join(str(d) if d > 0 else "1" if not i else "SIZE" for i, d in enumerate(known))
        raise file_error(
            file,
            "a fixed size of every axis but the batch",
            f"the shape {_shown(known)}",
            f"pass --input_shape {name}={example} with numbers in place of SIZE",
            f"input '{name}'",
        )
    if known[:1] == (-1,) or (batch is not None and known[:1] == (1,)):
        return (batch or 1, *known[1:])
    if batch not in (None, *known[:1]):
        raise file_error(
            file,
            f"a batch that can be {batch}",
            f"the fixed shape {_shown(known)}",
            "leave --batch_size out",
            f"input '{name}'",
        )
    return record.shape


def _shown(shape: tuple[int, ...]) -> str:
    return f"({', '.join('?' if d < 0 else str(d) for d in shape)})"


def input_names(subgraph: SubgraphRecord, signature: Signature | None) -> dict[int, str]:
    """What the inputs are called, by tensor: as the signature says, else as their tensors."""
    names = {i: subgraph.tensors[i].name or f"input_{k}" for k, i in enumerate(subgraph.inputs)}
    if signature is not None:
        names.update({i: name for name, i in signature.inputs.items() if i in names})
    return names


def output_names(
    subgraph: SubgraphRecord, signature: Signature | None, outputs: tuple[int, ...], options: ModelOptions
) -> list[str]:
    """What the outputs are called: as the options say, else the signature, else their tensors."""
    if options.output_nodes:
        return list(options.output_nodes)
    given = {} if signature is None else {i: name for name, i in signature.outputs.items()}
    return [given.get(i) or subgraph.tensors[i].name or f"output_{k}" for k, i in enumerate(outputs)]
