"""What TFLite's own benchmark tool (`benchmark_model`) prints, read into the keys of `benchmark --json`.

The tool prints a line of figures for the warm-up and one for the timed runs (`count=50 first=... avg=...`, in
microseconds; older versions leave the percentiles out), then a summary of initialization, first run and means, and how
far the memory of its process grew.
"""

from __future__ import annotations

import re

from ir.errors import RuntimeFailure

_NUMBER = r"([\d.]+(?:e[+-]?\d+)?)"
_COUNT = re.compile(r"\bcount=(\d+)((?: \w+=[\d.]+(?:e[+-]?\d+)?)*)")
_FIELD = re.compile(rf" (\w+)={_NUMBER}")
_SUMMARY = re.compile(
    rf"Inference timings in us: Init: {_NUMBER}, First inference: {_NUMBER}, "
    rf"Warmup \(avg\): {_NUMBER}, Inference \(avg\): {_NUMBER}"
)
_MEMORY = re.compile(rf"memory footprint[^:\n]*\(MB\): init={_NUMBER} overall={_NUMBER}", re.IGNORECASE)
_PEAK = re.compile(rf"peak memory footprint \(MB\) via periodic monitoring: {_NUMBER}")
_MIB = 1 << 20
_FIELDS = ("curr", "min", "max", "std", "p5", "median", "p95")


def parse_report(text: str, where: str) -> dict[str, float | None]:
    """Milliseconds, bytes and counts by the keys of `benchmark --json`; None for what the tool does not report.

    Raises RuntimeFailure if the text ends without the tool's summary: it failed.
    """
    summary = _SUMMARY.search(text)
    lines = _COUNT.findall(text)
    if summary is None or not lines:
        printed = [line for line in text.splitlines() if line.strip()]
        error = next((line for line in printed if re.search(r"error|fail|not found|denied", line, re.IGNORECASE)), None)
        raise RuntimeFailure(
            expected="benchmark_model to measure the file",
            found=f"it stopped with '{(error or (printed[-1] if printed else 'no output')).strip()}'",
            where=where,
            fix="see whether it is built for this device and supports the file's operators",
        )
    init, first, warmup, average = (_ms(n) for n in summary.groups())
    count, rest = lines[-1]
    timed = {name: _ms(value) for name, value in _FIELD.findall(rest)}
    memory, peak = _MEMORY.search(text), _PEAK.search(text)
    return {
        "init_ms": init,
        "first_ms": first,
        "warmup_runs": int(lines[0][0]) if len(lines) > 1 else 0,
        "warmup_avg_ms": warmup,
        "count": int(count),
        "avg_ms": average,
        **{f"{name}_ms": timed.get(name) for name in _FIELDS},
        "p90_ms": None,
        "init_memory_bytes": round(float(memory[1]) * _MIB) if memory else None,
        "overall_memory_bytes": round(float(memory[2]) * _MIB) if memory else None,
        "peak_memory_bytes": round(float(peak[1]) * _MIB) if peak else None,
    }


def _ms(microseconds: str) -> float:
    return round(float(microseconds) / 1000, 6)
