"""Arm's compiler for the Ethos-U, Vela, run on a file: what it left on the CPU and why, cycles and memory.

Which operators stay on the CPU is read from the file that Vela writes; the reasons from its warnings.
"""

from __future__ import annotations

import csv
import dataclasses
import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.programs import find_program, lines_of, run_program
from converter.targets.ethos_u import CPU, NPU
from converter.targets.rules import CheckReport
from converter.tflite.model_file import parse_unchecked
from ir.errors import RuntimeFailure

PROGRAM = "vela"
ACCELERATORS = {"ethos-u55": "ethos-u55-256", "ethos-u65": "ethos-u65-256", "ethos-u85": "ethos-u85-256"}
_ON_NPU = "CUSTOM:ethos-u"
_TIMEOUT_S = 600
_REASON = re.compile(r"^Warning \([^)]*\) operator: .*?, ofm: '(.*)'\nReason: (.+)$", re.MULTILINE)
_KIB = {"sram": "sram_memory_used", "dram": "dram_memory_used", "flash": "off_chip_flash_memory_used"}


@dataclass(frozen=True, kw_only=True)
class VelaReport:
    """What Vela made of a file.

    Attributes:
      on_cpu: operators that it left on the CPU: (TFLite's name, name of the first result).
      reasons: by the name of the first result.
      cycles, macs, inference_ms: its estimates; `memory_bytes` by kind: sram, dram, flash.
    """

    accelerator: str
    on_cpu: tuple[tuple[str, str], ...]
    reasons: Mapping[str, str]
    cycles: int
    macs: int
    inference_ms: float
    memory_bytes: Mapping[str, int]

    def as_json(self) -> dict[str, Any]:
        return {
            "accelerator": self.accelerator,
            "cycles": self.cycles,
            "macs": self.macs,
            "inference_ms": self.inference_ms,
            "memory_bytes": dict(self.memory_bytes),
        }


def installed() -> str | None:
    """Vela's path, None if it is not there."""
    return find_program(PROGRAM)


def run_vela(model: str | Path, accelerator: str) -> VelaReport:
    """Runs Vela; the file that it makes is thrown away. Raises RuntimeFailure if it is missing or refuses the file."""
    program = installed()
    if program is None:
        raise RuntimeFailure(
            expected="Arm's Vela", found="it is not installed", where="inspect", fix="pip install 'ethos-u-vela>=5.2'"
        )
    with tempfile.TemporaryDirectory() as folder:
        command = [program, str(Path(model).resolve()), "--accelerator-config", accelerator, "--output-dir", folder]
        try:
            status, said = run_program(command, _TIMEOUT_S, cwd=folder)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _refused(model, str(error)) from error
        compiled, table = sorted(Path(folder).glob("*_vela.tflite")), sorted(Path(folder).glob("*_summary_*.csv"))
        if status or not compiled or not table:
            lines = lines_of(said)
            raise _refused(
                model, next((line for line in lines if line.startswith("Error")), lines[-1] if lines else "nothing")
            )
        graph = parse_unchecked(compiled[0].read_bytes()).main  # names are read; its shapes need not fit together
        left = tuple(
            (op.code, graph.tensors[op.outputs[0]].name) for op in graph.operators if op.code != _ON_NPU and op.outputs
        )
        with table[0].open(newline="") as file:
            row = next(csv.DictReader(file))
    return VelaReport(
        accelerator=accelerator,
        on_cpu=left,
        reasons=dict(_REASON.findall(said)),
        cycles=int(float(row["cycles_total"])),
        macs=int(float(row["nn_macs"])),
        inference_ms=float(row["inference_time"]) * 1000,
        memory_bytes={kind: round(float(row[column]) * 1024) for kind, column in _KIB.items()},
    )


def _refused(model: str | Path, found: str) -> RuntimeFailure:
    return RuntimeFailure(
        expected="Vela to compile the file",
        found=found,
        where=str(model),
        fix="change the operator it names, or choose another target",
    )


def decide(report: CheckReport, vela: VelaReport) -> CheckReport:
    """The report with Vela's decisions in place of the predicted ones."""
    left = set(vela.on_cpu)
    verdicts = []
    for v in report.verdicts:
        if (v.name, v.layer) not in left:
            verdicts.append(dataclasses.replace(v, mapped=True, status=NPU, reason="", fix=""))
        else:
            reason = vela.reasons.get(v.layer) or v.reason or "Vela left it there"
            verdicts.append(
                dataclasses.replace(
                    v, mapped=False, status=CPU, reason=reason, fix=v.fix or "use other layers; it runs on the CPU"
                )
            )
    memory = ", ".join(f"{kind} {size / 1024:.1f} KiB" for kind, size in vela.memory_bytes.items() if size)
    note = f"Vela for {vela.accelerator}: {vela.cycles} cycles, {vela.inference_ms:.3f} ms, {memory}"
    return dataclasses.replace(
        report,
        verdicts=tuple(verdicts),
        notes=(note,),
        figures={**report.figures, "vela": vela.as_json()},
        predicted=False,
    )
