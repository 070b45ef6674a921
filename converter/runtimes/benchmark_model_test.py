"""Reports of several versions of the tool, as people have published them, and reports of failures."""

import pytest

from converter.runtimes.benchmark_model import parse_report
from ir.errors import RuntimeFailure

NEW = """INFO: STARTING!
INFO: Loaded model m.tflite
INFO: The input model file size (MB): 24.6229
INFO: Initialized session in 119.515ms.
INFO: Running benchmark for at least 5 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
INFO: count=9 first=87112 curr=51629 min=51629 max=87112 avg=58147.4 std=11478 p5=51629 median=51962 p95=87112

INFO: count=1000 first=52162 curr=49785 min=49088 max=686105 avg=6.37432e+04 std=60716 p5=49620 median=51891 p95=68628

INFO: Inference timings in us: Init: 119515, First inference: 87112, Warmup (avg): 58147.4, Inference (avg): 6.37432e+04
INFO: Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE.
INFO: Memory footprint delta from the start of the tool (MB): init=55.5 overall=110.25
INFO: Overall peak memory footprint (MB) via periodic monitoring: 112.5
"""
OLD = """count=1 curr=3512391

count=50 first=249042 curr=250889 min=247067 max=254474 avg=249684 std=1442
Inference timings in us: Init: 16242, First inference: 360262, Warmup (avg): 304586, Inference (avg): 249684
Peak memory footprint (MB): init=4.5 overall=138.5
"""


def test_a_new_report():
    found = parse_report(NEW, "phone")
    assert found == {
        "init_ms": 119.515, "first_ms": 87.112, "warmup_runs": 9, "warmup_avg_ms": 58.1474, "count": 1000,
        "avg_ms": 63.7432, "curr_ms": 49.785, "min_ms": 49.088, "max_ms": 686.105, "std_ms": 60.716, "p5_ms": 49.62,
        "median_ms": 51.891, "p90_ms": None, "p95_ms": 68.628, "init_memory_bytes": round(55.5 * 2**20),
        "overall_memory_bytes": round(110.25 * 2**20), "peak_memory_bytes": round(112.5 * 2**20),
    }  # fmt: skip


def test_an_old_report_has_no_percentiles():
    found = parse_report(OLD, "phone")
    assert (found["count"], found["warmup_runs"], found["min_ms"], found["avg_ms"]) == (50, 1, 247.067, 249.684)
    assert found["median_ms"] is None and found["p95_ms"] is None
    assert found["overall_memory_bytes"] == round(138.5 * 2**20) and found["peak_memory_bytes"] is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("STARTING!\nERROR: Could not open 'm.tflite'.\nBenchmarking failed.\n", "Could not open"),
        ("/system/bin/sh: benchmark_model: not found\n", "not found"),
        ("", "no output"),
    ],
)
def test_failures_are_reported(text, message):
    with pytest.raises(RuntimeFailure, match=message):
        parse_report(text, "phone")
