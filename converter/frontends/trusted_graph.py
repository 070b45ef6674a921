"""SavedModels and frozen graphs are programs: what they may not hold is refused by name before TensorFlow loads them.

Loading runs initializers, and converting folds constants, so an operator that reads or writes files, speaks to a network
or calls Python would do so on this machine. Saving and restoring of weights is what every SavedModel has: those operators
are taken where only the saver's own nodes call them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from converter.frontends.refused_operators import OF_SAVERS, REFUSED
from ir.errors import ModelError


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
    for meta in saved.meta_graphs:
        _check(path, meta.graph_def, _saver_functions(meta))


def check_graph(path: Path, definition: Any) -> None:
    """The same of a frozen graph."""
    _check(path, definition, set())


def _error(path: Path, expected: str, found: str) -> ModelError:
    return ModelError(expected=expected, found=found, where=str(path), fix="export the network alone, without them")


def _check(path: Path, graph: Any, savers: set[str]) -> None:
    found = {node.op for node in graph.node if _is_refused(node, saver=True)}
    for function in graph.library.function:
        saver = function.signature.name in savers
        found |= {node.op for node in function.node_def if _is_refused(node, saver)}
    if found:
        raise _error(path, "operators that compute", f"some that reach files, the network or Python: {_few(found)}")


def _few(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)[:8])


def _is_refused(node: Any, saver: bool) -> bool:
    return node.op in REFUSED and not (saver and node.op in OF_SAVERS)


def _saver_functions(meta: Any) -> set[str]:
    """The functions that the saver's nodes call, less those that anything else names."""
    own = {name.split(":")[0] for name in (meta.saver_def.save_tensor_name, meta.saver_def.restore_op_name)}
    called = {f for node in meta.graph_def.node if node.name in own for f in _calls(node)}
    others = {f for node in meta.graph_def.node if node.name not in own for f in _calls(node)}
    for function in meta.graph_def.library.function:
        others |= {f for node in function.node_def for f in _calls(node)}
    return called - others - set(meta.object_graph_def.concrete_functions)


def _calls(node: Any) -> Iterator[str]:
    for value in node.attr.values():
        yield from (f.name for f in (value.func, *value.list.func) if f.name)
