"""Converts networks as drawn options say: each conversion must end in a file that runtimes compute, or in a sentence.

python -m tools.train_families --output_dir=nets --effort=0.3
python -m tools.fuzz_conversions --models=nets/vit.json,nets/tcn.json --count=100 --seed=1

Few samples calibrate and little is trained: what is looked for are combinations that nobody thought of, not accuracy.
"""

from __future__ import annotations

import random
import time
import traceback
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from absl import flags

from converter.mixed.budget import Budget
from converter.targets import TARGETS
from ir.errors import ConversionError, OptionError, ProofError
from passes.quantization.bits import ACTIVATION_BITS, WEIGHT_BITS
from passes.quantization.lower import IO_TYPES
from passes.quantization.quantize import GRANULARITIES
from passes.running.pipeline import PIPELINES
from tools._command import SEEDS, import_backend, run_command
from tools.inspect_contents import say

FLAGS = flags.FLAGS

_SHARED = Path(__file__).resolve().parent.parent.parent / "shared"
_SAMPLES = (1, 3, 20)
_SHARES: Mapping[str, float] = {"target": 0.7, "pipeline": 0.5, "granularity": 0.4, "io": 0.5}
_BUDGETS = (None, None, None, Budget(mean_bits=4), Budget(mean_bits=6), Budget(max_size="50kB"))


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network by its name, how many samples calibrate it, and the arguments of `convert`."""

    model: str
    samples: int
    options: Mapping[str, Any]

    def __str__(self) -> str:
        return " ".join((self.model, f"samples={self.samples}", *(f"{k}={v}" for k, v in self.options.items())))


def drawn(models: list[str], seed: int) -> Case:
    """The same case for the same seed."""
    rng = random.Random(seed)
    values = {"target": [*TARGETS], "pipeline": [*PIPELINES], "granularity": GRANULARITIES, "io": IO_TYPES}
    options: dict[str, Any] = {
        name: rng.choice(values[name]) for name, share in _SHARES.items() if rng.random() < share
    }
    if rng.random() < 0.4:
        options["activation_bits"] = rng.choice(ACTIVATION_BITS)
    budget = rng.choice(_BUDGETS)
    if budget is not None:
        options = {**{name: value for name, value in options.items() if name != "pipeline"}, "budget": budget}
    elif rng.random() < 0.4:
        options["weight_bits"] = rng.choice(WEIGHT_BITS)
    return Case(model=rng.choice(models), samples=rng.choice(_SAMPLES), options=options)


def fault(case: Case, shared: Path) -> str | None:
    """What is wrong with how a conversion ends: "" if nothing is, None if it was refused in a sentence."""
    from converter.conversion import convert  # both bring Keras, whose backend is chosen first
    from tools._subjects import load_subject

    subject = load_subject(case.model, shared, case.samples, None)
    data_free = str(case.options.get("pipeline")).startswith("data_free")
    try:
        convert(str(subject.path), calibration_data=None if data_free else subject.calibration, **case.options)
    except ProofError as error:
        return str(error)
    except ConversionError:
        return None
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} {Path(last.filename).name}:{last.lineno} {str(error)[:200]}"
    return ""


def main() -> None:
    """Tries every case, says what was found, and fails where that is anything."""
    if not FLAGS.models:
        raise OptionError(expected="networks", found="none", where="--models", fix="name some")
    import_backend()
    outcomes: Counter[str] = Counter()
    for seed in range(FLAGS.seed, FLAGS.seed + FLAGS.count):
        case = drawn(FLAGS.models, seed)
        start = time.monotonic()
        found = fault(case, Path(FLAGS.shared))
        outcome = "refused" if found is None else "faults" if found else "files"
        outcomes[outcome] += 1
        say(f"{seed}: {case}: {found or outcome} ({time.monotonic() - start:.0f} s)")
    say(", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common()))
    if outcomes["faults"]:
        raise SystemExit(1)


def run() -> None:
    """Entry point."""
    flags.DEFINE_list("models", [], "Networks: names that compare_converters has, or the .json of trained ones.")
    flags.DEFINE_integer("count", 20, "Conversions.", lower_bound=0)
    flags.DEFINE_integer("seed", 0, "Of the first conversion; the next has the next.", **SEEDS)
    flags.DEFINE_string("shared", str(_SHARED), "The folder with networks and data.")
    run_command(main)


if __name__ == "__main__":
    run()
