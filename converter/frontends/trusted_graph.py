"""SavedModels and frozen graphs are programs: what they may not hold is refused by name before TensorFlow loads them.

Loading runs initializers, and converting folds constants, so an operator that reads or writes files, speaks to a network
or calls Python would do so on this machine. Saving and restoring of weights is what every SavedModel has: those operators
are taken where only the saver's own nodes call them. Of a SavedModel of TensorFlow 1, loading runs those that restore: these
are taken where they read the model's own file, and the others where nothing that loading runs, or a signature, needs them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from converter.frontends.refused_operators import OF_SAVERS, REFUSED
from converter.regular import other_than_file
from ir.errors import ModelError


def check_files(path: Path) -> None:
    """Raises ModelError where a frozen graph, or anything in a SavedModel, is a pipe or a device: they block, or never end."""
    for file in [path, *path.rglob("*")]:
        found = other_than_file(file)
        if found not in ("", "a directory"):
            raise ModelError(expected="regular files", found=found, where=str(file), fix="save the model again")


def check_saved_model(path: Path) -> None:
    """Raises ModelError for a SavedModel's operators that reach outside, or one that cannot be read."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel()
    try:
        saved.ParseFromString((path / "saved_model.pb").read_bytes())
    except (OSError, DecodeError) as error:
        raise _error(
            path,
            "a SavedModel that TensorFlow can load",
            f"a saved_model.pb that cannot be read ({type(error).__name__})",
        ) from error
    runs_nodes = len(saved.meta_graphs) != 1 or not saved.meta_graphs[0].HasField("object_graph_def")
    for meta in saved.meta_graphs:
        nodes = meta.graph_def.node
        if runs_nodes:  # as TensorFlow 1 did; else it loads functions
            _check(path, nodes if _is_misused(meta) else _without_savers(nodes), meta.graph_def.library, set())
        else:
            _check(path, _without_savers(nodes), meta.graph_def.library, _saver_functions(meta))


def check_graph(path: Path, definition: Any) -> None:
    """The same of a frozen graph, which has nothing to save and to restore."""
    _check(path, definition.node, definition.library, set())


def _error(path: Path, expected: str, found: str) -> ModelError:
    return ModelError(expected=expected, found=found, where=str(path), fix="export the network alone, without them")


def _check(path: Path, nodes: Iterable[Any], library: Any, savers: set[str]) -> None:
    found = {node.op for node in nodes if node.op in REFUSED}
    for function in library.function:
        of_saver = function.signature.name in savers
        body = _without_savers(function.node_def) if of_saver else function.node_def
        found |= {node.op for node in body if node.op in REFUSED}
    if found:
        raise _error(path, "operators that compute", f"some that reach files, the network or Python: {_few(found)}")


def _few(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)[:8])


def _without_savers(nodes: Iterable[Any]) -> list[Any]:
    return [node for node in nodes if node.op not in OF_SAVERS]


# --- TensorFlow 2: functions that the saver's nodes call --------------------------------------------------------------


def _saver_functions(meta: Any) -> set[str]:
    """The functions that the saver's nodes call, less those that anything else names."""
    own = {_node(name) for name in (meta.saver_def.save_tensor_name, meta.saver_def.restore_op_name)}
    called = {f for node in meta.graph_def.node if node.name in own for f in _calls(node)}
    others = {f for node in meta.graph_def.node if node.name not in own for f in _calls(node)}
    for function in meta.graph_def.library.function:
        others |= {f for node in function.node_def for f in _calls(node)}
    return called - others - set(meta.object_graph_def.concrete_functions)


def _calls(node: Any) -> Iterator[str]:
    """What may be functions: attributes, and the operator itself, which may be the name of one."""
    yield node.op
    for value in node.attr.values():
        yield from (f.name for f in (value.func, *value.list.func) if f.name)


# --- TensorFlow 1: nodes ----------------------------------------------------------------------------------------------


def _is_misused(meta: Any) -> bool:
    """Whether loading, or a signature, would save, or restore anything but the model's own file."""
    by_name = {node.name: node for node in meta.graph_def.node}
    sources = {name: [_node(i) for i in node.input] for name, node in by_name.items()}
    readers: dict[str, list[str]] = defaultdict(list)
    for name, inputs in sources.items():
        for source in inputs:
            readers[source].append(name)
    savers = [name for name, node in by_name.items() if node.op in OF_SAVERS]
    if _reached(savers, readers) & _looked_up(meta):
        return True
    own_file = _node(meta.saver_def.filename_tensor_name)
    run = _reached([_node(meta.saver_def.restore_op_name)], sources)
    return any(by_name[n].op != "RestoreV2" or sources[n][:1] != [own_file] for n in savers if n in run)


def _node(name: str) -> str:
    """The node of a tensor or of a control input."""
    return name.removeprefix("^").split(":")[0]


def _reached(starts: Iterable[str], edges: Mapping[str, list[str]]) -> set[str]:
    found, waiting = set(starts), list(starts)
    while waiting:
        new = set(edges.get(waiting.pop(), ())) - found
        found |= new
        waiting += new
    return found


def _looked_up(meta: Any) -> set[str]:
    """The nodes that a loader names: those of signatures, initializers and variables."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.framework.variable_pb2 import VariableDef

    found = [text for signature in meta.signature_def.values() for text in _texts(signature)]
    for key, collection in meta.collection_def.items():
        found += collection.node_list.value
        for data in collection.bytes_list.value if key != "savers" else ():
            try:
                found += _texts(VariableDef.FromString(data))
            except DecodeError:  # of another kind, which loading does not run
                continue
    return {_node(name) for name in found}


def _texts(message: Any) -> Iterator[str]:
    """All strings in a message of a protocol buffer."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            is_map = hasattr(value, "values")
            for part in value.values() if is_map else value if hasattr(value, "__len__") else [value]:
                yield from _texts(part) if hasattr(part, "ListFields") else ()
        elif field.type == field.TYPE_STRING:
            yield from [value] if isinstance(value, str) else value
