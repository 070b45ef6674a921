"""What is asked of the pipeline compress, and files that it makes, run on the runtimes that are installed."""

from __future__ import annotations

import numpy as np
import pytest

from converter.compressing import Compression, carriers_of, check_widths, parse_size
from converter.conversion import convert
from converter.result import ConversionResult
from converter.runtimes.local import LocalRuntime
from converter.targets import get_target
from converter.tflite.decoding import Carrier
from converter.tflite.model_file import parse
from converter.tflite.packing import packings
from converter.tflite.reader import to_graph
from converter.tflite.writer import to_bytes
from ir.errors import GateError, OptionError
from ir.graph import Graph
from ir.ops.relu import RELU
from ir.profile import TFLM
from passes.compression.codebooks import Codebooks
from passes.compression.ipq import Ipq
from passes.contract.base import Pass
from passes.graph_testing import Net, random_inputs
from passes.quantization.quantize import Quantize
from passes.rounding.round_weights import RoundWeights


def network() -> Graph:
    net = Net(0)
    x = net.then(RELU, net.conv(net.input(6, 6, 8), 32, spread=1.0, name="first"), name="a")
    x = net.then(RELU, net.conv(x, 64, 1, name="point"), name="b")
    return net.ends(net.dense(x, 10, name="dense"))


def converted(target: str, compression: Compression | None, **options: object) -> ConversionResult:
    graph = network()
    x = random_inputs(graph, 40)[0]
    return convert(to_bytes(graph), target=target, calibration_data=x, compression=compression, **options)


@pytest.mark.parametrize("text, size", [("300000", 300000), ("1.2MB", 1200000), ("400 KiB", 409600), ("8kb", 8000)])
def test_sizes_are_read(text, size):
    assert parse_size(text) == size == Compression(max_size=text).limit


@pytest.mark.parametrize("text", ["", "big", "1.2 apples", "-3"])
def test_other_sizes_are_refused(text):
    with pytest.raises(OptionError, match="--max_size: expected a size such as"):
        Compression(max_size=text)


def test_other_means_are_refused_and_no_size_is_none():
    with pytest.raises(OptionError, match="--compress: expected means of pq, prune, huffman, found share"):
        Compression(means=("pq", "share"))
    with pytest.raises(OptionError, match="--max_size: expected a size above 0"):
        Compression(max_size=0)


def test_a_target_unpacks_what_it_has_and_others_only_codebooks():
    every = Compression()
    assert every.carriers(get_target("cpu")) == {Carrier.GATHER}
    assert every.carriers(get_target("tflm")) == set(Carrier) - {Carrier.PLAIN}
    assert Compression(means=("huffman",)).carriers(get_target("tflm")) == {Carrier.HUFFMAN}
    assert carriers_of(None, get_target("tflm")) == {Carrier.GATHER}


def test_without_codebooks_weights_are_rounded():
    assert Compression(means=("huffman",)).apply([Codebooks()]) == [RoundWeights()]
    assert Compression(max_size=999).apply([Codebooks()]) == [Codebooks(max_bytes=999)]
    assert Compression(means=("prune",)).apply([Codebooks()]) == [RoundWeights()]  # without a size nothing has to go
    for mean in ("prune", "huffman"):
        assert Compression(means=(mean,), max_size=999).apply([Codebooks()]) == [Codebooks(max_bytes=999)]


@pytest.mark.parametrize("coder", [Codebooks(), Ipq()], ids=lambda coder: coder.name)
def test_codebooks_beside_few_bits_are_refused(coder: Pass) -> None:
    check_widths([Quantize(activation_bits=4), coder])
    check_widths([Quantize(weight_bits=4), RoundWeights()])
    for narrow in (Quantize(weight_bits=4), Quantize(rules="operator:conv_2d=w4")):
        with pytest.raises(OptionError, match="entries of codebooks have, found 4 bits for weights"):
            check_widths([narrow, coder])


def test_codebooks_that_are_trained_keep_to_the_size_and_cannot_be_left_out():
    assert Compression(max_size=999).apply([Ipq(epochs=3)]) == [Ipq(epochs=3, max_bytes=999)]
    with pytest.raises(OptionError, match="--compress: expected pq among the means, found huffman"):
        Compression(means=("huffman",)).apply([Ipq()])


def test_a_file_for_a_cpu_has_the_size_that_was_asked_for():
    plain = converted("cpu", None, pipeline="fast", granularity="per_tensor")
    limit = int(0.6 * plain.size_bytes)
    result = converted("cpu", Compression(max_size=limit))
    assert 0.85 * limit < result.size_bytes <= limit
    assert result.quality.sqnr_db > 12
    packed = {w.layer: w.packed for w in result.widths if w.packed}
    assert packed and all(text.endswith(" gather") for text in packed.values())
    assert sum(w.saved_bytes for w in result.widths) > 0.35 * plain.size_bytes
    assert all(proof.not_run is None for proof in result.proof if proof.runtime != "tflm")  # no uint8 CAST there
    weights = {n.name: n.weight for n in to_graph(parse(result.model)).nodes if n.weight is not None}
    assert any(w.quant.codebook is not None for w in weights.values())


@pytest.mark.skipif(not LocalRuntime.of(TFLM).installed, reason="tflite-micro is not installed")
def test_a_file_for_microcontrollers_has_the_size_that_was_asked_for_and_runs_there():
    plain = converted("tflm", None, pipeline="fast", granularity="per_tensor")
    limit = int(0.6 * plain.size_bytes)
    result = converted("tflm", Compression(max_size=limit))
    assert packings(parse(result.model)) and 0.95 * limit < result.size_bytes <= limit
    found = {p.runtime: p for p in result.proof}
    assert found["tflm"].samples and not found["tflm"].differing
    assert not result.prediction.unmapped


@pytest.mark.skipif(not LocalRuntime.of(TFLM).installed, reason="tflite-micro is not installed")
def test_huffman_codes_alone_keep_every_weight():
    plain = converted("tflm", None, pipeline="default", granularity="per_tensor")
    result = converted("tflm", Compression(means=("huffman",)))
    assert result.size_bytes < plain.size_bytes
    assert {p.carrier for p in packings(parse(result.model)).values()} == {Carrier.HUFFMAN}
    found = {p.runtime: p for p in result.proof}
    assert found["tflm"].samples and not found["tflm"].differing
    assert all("TFLM_DECODE" in p.not_run for name, p in found.items() if name != "tflm")
    assert not result.prediction.unmapped
    pairs = zip(to_graph(parse(plain.model)).constants(), to_graph(parse(result.model)).constants(), strict=True)
    for a, b in pairs:
        np.testing.assert_array_equal(a.data, b.data)


@pytest.mark.skipif(not LocalRuntime.of(TFLM).installed, reason="tflite-micro is not installed")
def test_without_codebooks_weights_become_zeros_for_a_size():
    plain = converted("tflm", None, pipeline="fast", granularity="per_tensor")
    limit = int(0.75 * plain.size_bytes)
    result = converted("tflm", Compression(max_size=limit, means=("prune",)))
    assert result.size_bytes <= limit
    zeros = {w.layer: w.zeros for w in result.widths if w.packed}
    assert zeros and max(zeros.values()) >= 0.5
    (report,) = (r.report for r in result.passes if isinstance(r.step, Codebooks))
    assert any("% zeros" in text for text in report.changed) and "zeros in place of weights" in report.notes[0]
    found = {p.runtime: p for p in result.proof}
    assert found["tflm"].samples and not found["tflm"].differing
    assert {p.carrier for p in packings(parse(result.model)).values()} == {Carrier.PRUNED}


@pytest.mark.skipif(not LocalRuntime.of(TFLM).installed, reason="tflite-micro is not installed")
def test_huffman_codes_for_a_size_take_longer_steps():
    plain = converted("tflm", None, pipeline="fast", granularity="per_tensor")
    limit = int(0.6 * plain.size_bytes)
    result = converted("tflm", Compression(max_size=limit, means=("huffman",)))
    assert 0.95 * limit < result.size_bytes <= limit
    (report,) = (r.report for r in result.passes if isinstance(r.step, Codebooks))
    assert any("steps x " in text for text in report.changed) and "longer steps" in report.notes[0]
    weights = [n.weight for n in to_graph(parse(result.model)).nodes if n.weight is not None]
    assert min(np.abs(w.data.astype(int)).max() for w in weights) < 64  # int8 in longer steps needs fewer of them
    assert {p.carrier for p in packings(parse(result.model)).values()} == {Carrier.HUFFMAN}
    found = {p.runtime: p for p in result.proof}
    assert found["tflm"].samples and not found["tflm"].differing
    books = converted("tflm", Compression(max_size=limit, means=("pq",)))
    assert result.quality.sqnr_db > books.quality.sqnr_db + 1


def test_a_size_that_no_codebooks_reach_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(GateError, match="--max_size: expected a file of at most 1000 bytes, found"):
        converted("cpu", Compression(max_size=1000), output=tmp_path / "small.tflite")
    assert not list(tmp_path.iterdir())
