"""How long an inference takes by the widths of its layers, as LiteRT on this machine takes for each operator alone.

    (1)  t(b) = t(8) + sum_i (t_i(b_i) - t_i(8))

`t` is the time of a whole file, `t_i` that of a layer (`converter.profiling`): what calling an interpreter costs is in
every `t_i`, and falls out of the differences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from converter.benchmarking import Options, benchmark
from converter.mixed.candidates import WIDEST, Group
from converter.profiling import OperatorTime, operator_times
from converter.runtimes.base import ModelRuntime
from converter.runtimes.local import LocalRuntime
from converter.targets import Target
from ir.errors import OptionError, RuntimeFailure
from ir.profile import Runtime
from passes.contract.base import Progress

_NS = 1e6  # of a millisecond
_FLAG = "--max_latency"

FileOf = Callable[[Sequence[int]], bytes]  # the file of a choice of widths


@dataclass(frozen=True, kw_only=True)
class Latencies:
    """Nanoseconds: of each group of weights by its bits, and of an inference besides (less than 0 where calls cost more)."""

    layers: tuple[dict[int, int], ...]
    rest: int

    def of(self, bits: Sequence[int]) -> int:
        """An inference with these widths, (1)."""
        return self.rest + sum(times[b] for times, b in zip(self.layers, bits, strict=True))


def runtime_for(target: Target) -> ModelRuntime:
    """What files for a target are timed on. Raises OptionError for a target that this machine cannot stand for."""
    runtime = LocalRuntime(package="ai_edge_litert", kernels="xnnpack", threads=1)
    here = target.compiler is None and Runtime.LITERT in target.computes and not target.exclusive
    if here and runtime.installed:
        return runtime
    raise OptionError(
        expected="a target whose operators LiteRT runs here (cpu, litert), with ai-edge-litert installed",
        found=f"{target.name}, whose times are not known here" if not here else "no ai-edge-litert",
        where=_FLAG,
        fix="give --max_bops, --max_size or --mean_bits",
    )


def measure(
    groups: Sequence[Group],
    names: Callable[[str], Sequence[str]],
    file_of: FileOf,
    runtime: ModelRuntime,
    progress: Progress,
) -> Latencies:
    """Times of all groups at all their widths, from files of uniform ones.

    Args:
      names: what a layer's result may be called in a file.
    """
    found: list[dict[int, int]] = [{} for _ in groups]
    whole = 0
    for width in sorted({b for group in groups for b in group.bits}, reverse=True):
        file = file_of([group.at_most(width) for group in groups])
        times = {t.layer: t for t in operator_times(file, runtime, progress=progress)}
        if width == WIDEST:
            whole = int(_NS * benchmark(file, runtime, Options()).percentile(50))
        for group, known in zip(groups, found, strict=True):
            if width in group.bits:
                known[width] = sum(_nanoseconds(times, names(layer)) for layer in group.layers)
    return Latencies(layers=tuple(found), rest=whole - sum(known[WIDEST] for known in found))


def warnings(file: bytes, limit_ms: float, runtime: ModelRuntime) -> tuple[str, ...]:
    """What to say where the written file takes longer than its layers were chosen for."""
    taken = benchmark(file, runtime, Options()).percentile(50)
    if taken <= limit_ms:
        return ()
    return (
        f"the file takes {taken:.4g} ms in the median on {runtime.name}, {limit_ms:.4g} ms were asked for with {_FLAG}: operators "
        "together take other times than alone, and other work on the machine counts; ask for less, or measure again "
        "with intact benchmark",
    )


def _nanoseconds(times: dict[str, OperatorTime], names: Sequence[str]) -> int:
    found = next((times[name] for name in names if name in times), None)
    if found is None or found.median_ms is None:
        raise RuntimeFailure(
            expected=f"the time of layer {names[0]}",
            found="no operator of its name" if found is None else str(found.problem),
            where=_FLAG,
            fix="give another budget",
        )
    return int(_NS * found.median_ms)
