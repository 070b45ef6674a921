"""SavedModels that would write a file, when loaded or when called, are refused before TensorFlow sees them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow.core.framework import op_def_pb2, variable_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow.python.client import pywrap_tf_session
from tensorflow.python.trackable.resource import CapturableResource

from converter.frontends.options import ModelOptions
from converter.frontends.refused_operators import OF_SAVERS, REFUSED
from converter.frontends.saved_model import from_saved_model
from converter.frontends.trusted_graph import check_saved_model
from ir.errors import ModelError

_X = tf.TensorSpec([1, 2], tf.float32)


def _writer(path: Path, *, at_load: bool) -> tf.Module:
    class Resource(CapturableResource):
        def _create_resource(self):  # type: ignore[no-untyped-def]
            return tf.raw_ops.MutableHashTableV2(key_dtype=tf.string, value_dtype=tf.int64)

        def _initialize(self) -> None:
            tf.io.write_file(str(path), "x")

    class Module(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.resource = Resource() if at_load else None

        @tf.function(input_signature=[_X])
        def call(self, x):  # type: ignore[no-untyped-def]
            if self.resource is None:
                tf.io.write_file(str(path), "x")
            else:
                _ = self.resource.resource_handle
            return {"y": x * 2.0}

    return Module()


@pytest.mark.parametrize("at_load", [True, False])
def test_operators_that_write_files(tmp_path: Path, at_load: bool) -> None:
    module = _writer(tmp_path / "written", at_load=at_load)
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=module.call)
    (tmp_path / "written").unlink(missing_ok=True)
    with pytest.raises(ModelError, match="reach files, the network or Python: WriteFile"):
        from_saved_model(tmp_path / "model", ModelOptions())
    assert not (tmp_path / "written").exists()


def test_weights_may_be_saved_and_restored(tmp_path: Path) -> None:
    module = tf.Module()
    module.w = tf.Variable([[1.0, 2.0], [3.0, 4.0]])
    module.call = tf.function(lambda x: {"y": x @ module.w}, input_signature=[_X])
    tf.saved_model.save(module, str(tmp_path), signatures=module.call)
    check_saved_model(tmp_path)


def test_a_saver_function_that_another_calls_by_its_name(tmp_path: Path) -> None:
    """A function is called by an attribute, or as an operator of its name."""
    module = tf.Module()
    module.w = tf.Variable([1.0, 2.0])
    module.call = tf.function(lambda x: {"y": x * module.w}, input_signature=[_X])
    tf.saved_model.save(module, str(tmp_path), signatures=module.call)
    saved = _read(tmp_path)
    library = saved.meta_graphs[0].graph_def.library.function
    saver = next(f.signature.name for f in library if any(node.op == "SaveV2" for node in f.node_def))
    other = next(f for f in library if all(node.op not in OF_SAVERS for node in f.node_def))
    other.node_def.add(name="more", op=saver)
    (tmp_path / "saved_model.pb").write_bytes(saved.SerializeToString())
    with pytest.raises(ModelError, match=r"reach files, the network or Python: .*SaveV2"):
        check_saved_model(tmp_path)


def _read(path: Path) -> saved_model_pb2.SavedModel:
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((path / "saved_model.pb").read_bytes())
    return saved


def _of_version_1(path: Path, written: Path | None = None) -> None:
    """With a variable, and a node `evil` that writes a checkpoint of its own."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [1, 2], "x")
        y = tf.identity(x * v1.get_variable("w", initializer=[1.0, 2.0]), "y")
        if written is not None:
            names = {"tensor_names": ["a"], "shape_and_slices": [""]}
            save = tf.raw_ops.SaveV2(prefix=str(written), tensors=[tf.constant([1.0])], **names)
            tf.group(save, name="evil")
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(str(path))
        signature = v1.saved_model.predict_signature_def({"x": x}, {"y": y})
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature})
        builder.save()


def test_version_1_restores_its_weights(tmp_path: Path) -> None:
    _of_version_1(tmp_path / "model")
    assert [v.name for v in from_saved_model(tmp_path / "model", ModelOptions()).graph.outputs] == ["y"]


def _as_initializer(meta: meta_graph_pb2.MetaGraphDef) -> None:
    meta.collection_def["saved_model_main_op"].node_list.value.append("evil")


def _as_restorer(meta: meta_graph_pb2.MetaGraphDef) -> None:
    meta.saver_def.restore_op_name = "evil"


def _as_output(meta: meta_graph_pb2.MetaGraphDef) -> None:
    next(node for node in meta.graph_def.node if node.name == "y").input.append("^evil")


def _as_variable(meta: meta_graph_pb2.MetaGraphDef) -> None:
    variable = variable_pb2.VariableDef(variable_name="v:0", initializer_name="evil")
    meta.collection_def["local_variables"].bytes_list.value.append(variable.SerializeToString())


def _of_another_file(meta: meta_graph_pb2.MetaGraphDef) -> None:
    meta.graph_def.node.add(name="elsewhere", op="Const")
    next(node for node in meta.graph_def.node if node.op == "RestoreV2").input[0] = "elsewhere"


@pytest.mark.parametrize("use", [_as_initializer, _as_restorer, _as_output, _as_variable, _of_another_file])
def test_version_1_runs_its_nodes(tmp_path: Path, use: Callable[[meta_graph_pb2.MetaGraphDef], None]) -> None:
    _of_version_1(tmp_path / "model", tmp_path / "written")
    saved = _read(tmp_path / "model")
    use(saved.meta_graphs[0])
    (tmp_path / "model" / "saved_model.pb").write_bytes(saved.SerializeToString())
    with pytest.raises(ModelError, match=r"reach files, the network or Python: .*SaveV2"):
        from_saved_model(tmp_path / "model", ModelOptions())
    assert not list(tmp_path.glob("written*"))


# What the names of operators that reach outside have in common; a new TensorFlow's others are to be looked at.
_KINDS = re.compile(
    r"File|PyFunc|Dataset|Iterator|Summary|Reader|Rpc|Recv|Send|RemoteCall|Debug|Dump|Print|ImmutableConst|Abort"
    r"|Checkpoint|Save|Restore|ShardedFilename|FixedUnigram|LMDB|Collective|Nccl|Vocab|RemapMatrix|RecordInput"
)


def test_the_list_has_all_operators_of_these_kinds() -> None:
    known = {op.name for op in _registered().op}
    assert sorted(name for name in known if _KINDS.search(name) and name not in REFUSED) == []
    assert OF_SAVERS < REFUSED < known  # each name is one of TensorFlow's


def _registered() -> op_def_pb2.OpList:
    listed = op_def_pb2.OpList()
    listed.ParseFromString(pywrap_tf_session.TF_GetBuffer(pywrap_tf_session.TF_GetAllOpList()))
    return listed


@pytest.mark.parametrize(
    "name", ["ReadFile", "PyFunc", "RecordInput", "LoadAndRemapMatrix", "DecodeProtoV2", "RpcCall"]
)
def test_a_frozen_graph_with_an_operator_that_reaches_outside(tmp_path: Path, name: str) -> None:
    graph = tf.compat.v1.GraphDef()
    graph.node.add(name="x", op="Placeholder")
    graph.library.function.add().node_def.add(name="inner", op=name)
    (tmp_path / "model.pb").write_bytes(graph.SerializeToString())
    with pytest.raises(ModelError, match=f"reach files, the network or Python: {name}"):
        from_saved_model(tmp_path / "model.pb", ModelOptions())


def test_a_frozen_graph_that_saves(tmp_path: Path) -> None:
    graph = tf.compat.v1.GraphDef()
    graph.node.add(name="x", op="Placeholder")
    graph.node.add(name="inner", op="SaveV2")
    (tmp_path / "model.pb").write_bytes(graph.SerializeToString())
    with pytest.raises(ModelError, match="reach files, the network or Python: SaveV2"):
        from_saved_model(tmp_path / "model.pb", ModelOptions())


@pytest.mark.parametrize("name", ["model.pb", "model/saved_model.pb", "model/variables/variables.index"])
def test_pipes_are_not_waited_for(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(ModelError, match=f"{name}: expected regular files, found a pipe"):
        from_saved_model(tmp_path / Path(name).parts[0], ModelOptions())
