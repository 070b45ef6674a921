"""SavedModels that would write a file, when loaded or when called, are refused before TensorFlow sees them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow.core.framework import op_def_pb2
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
