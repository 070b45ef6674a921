"""Proof: a file runs on the runtimes that are installed here, and they compute what the emulator says.

Each runtime gives the results of all operators for a few samples (`converter.runtimes.by_operator`). The emulator,
with that runtime's profile, computes every operator from the same inputs. The built-in kernels must equal it on every
element; XNNPACK rounds once where they round twice, so an operator's results may be as many steps apart as its
declaration says (`OpDef.xnnpack_steps`). Beside that, the file itself must give what it gives with its results
exposed. Anything else is a fault of ours: `ProofError` names the operator.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from converter.compare import to_integers
from converter.runtimes.by_operator import Difference, differences, expose, keeps
from converter.runtimes.local import LocalRuntime, WorkerLost, shared_worker
from converter.tflite.model_file import parse
from converter.tflite.reader import to_graph
from ir.errors import ProofError, RuntimeFailure
from ir.graph import Graph, Value
from ir.kernels import Support
from ir.profile import TFLM, Runtime
from ir.supported import computation
from passes.contract.base import Samples

_SAMPLES = 2
_MANY = 5_000_000  # results of a sample beyond which one sample is enough
_LIMIT_S = 60.0  # far more than any request takes; a worker that hangs is ended then
_INDICES = 2  # bound of random 32-bit and 64-bit inputs, which are indices
_REPORT = "nothing was written: this is a fault of ours, please report it; --noprove writes the file all the same"


@dataclass(frozen=True, kw_only=True)
class RuntimeProof:
    """What one runtime made of a file.

    Attributes:
      samples: how many it ran.
      elements, differing: of the results of all operators, against the emulator; `largest` difference in steps of scale.
      not_run: why the file is not for this runtime, None where it is.
      wrong: whether this runtime would silently compute something else.
    """

    runtime: str
    samples: int = 0
    elements: int = 0
    differing: int = 0
    largest: int = 0
    not_run: str | None = None
    wrong: bool = False

    def __str__(self) -> str:
        if self.not_run is not None:
            return f"not run on {self.runtime}: {self.not_run}"
        if not self.differing:
            return f"{self.runtime} equal"
        return f"{self.runtime} {self.differing} of {self.elements} results at most {self.largest} off"

    def as_json(self) -> dict[str, Any]:
        """A row of `proof` in `convert --json`."""
        return asdict(self)


def proof_runtimes() -> list[LocalRuntime]:
    """The runtimes that are installed here, those of one package beside each other."""
    every = [
        LocalRuntime(package="tflite_runtime", limit_s=_LIMIT_S),
        LocalRuntime(package="ai_edge_litert", limit_s=_LIMIT_S),
        LocalRuntime(package="ai_edge_litert", kernels="xnnpack", limit_s=_LIMIT_S),
        dataclasses.replace(LocalRuntime.of(TFLM), limit_s=_LIMIT_S),
    ]
    return [runtime for runtime in every if runtime.installed]


def start_runtimes() -> None:
    """Lets the runtimes start while other work goes on."""
    for runtime in proof_runtimes():
        shared_worker(runtime.package)


def prove(
    model: bytes,
    samples: Samples | None,
    *,
    seed: int = 0,
    required: Collection[Runtime] = (Runtime.LITERT,),
    runtimes: Sequence[LocalRuntime] | None = None,
) -> tuple[RuntimeProof, ...]:
    """Runs a file on every runtime. Raises ProofError where one differs from the emulator or cannot run the file.

    Args:
      samples: real inputs; random ones over the range of the file's inputs where there are none.
      required: what must run the file; others may say that they have no such kernel.
      runtimes: by default those that are installed.
    """
    work = _Work(model, samples, seed, required)
    chosen = proof_runtimes() if runtimes is None else runtimes
    groups = [list(group) for _, group in itertools.groupby(chosen, key=lambda r: r.package)]
    with ThreadPoolExecutor(max_workers=max(1, len(groups))) as pool:  # the runtimes of a package share a process
        found = list(pool.map(lambda group: [work.on(runtime) for runtime in group], groups))
    return tuple(itertools.chain.from_iterable(found))


def warnings(proved: Sequence[RuntimeProof], *, asked: bool) -> tuple[str, ...]:
    """What stays to be said of a file that a runtime computes wrong, or that none ran.

    Args:
      asked: whether it was to be proved.
    """
    found = tuple(f"do not run this file on {p.runtime}: {p.not_run}, and it says nothing" for p in proved if p.wrong)
    if any(proof.samples for proof in proved):
        return found
    why = "no runtime that can run it is installed here" if asked else "--noprove"
    return (*found, f"no runtime has run this file ({why}): that it computes what the emulator says is not proved")


class _Work:
    """A file and what it is run on."""

    def __init__(self, model: bytes, samples: Samples | None, seed: int, required: Collection[Runtime]) -> None:
        self.model, self.exposed, self.required = model, expose(model), required
        self.large = sum(math.prod(v.shape) for v in self.exposed.graph.outputs) > _MANY
        self.inputs = list(_inputs(to_graph(parse(model)), samples, seed))[: 1 if self.large else None]

    def on(self, runtime: LocalRuntime) -> RuntimeProof:
        """What one runtime makes of it. Raises ProofError."""
        micro = runtime.profile == TFLM  # with reference kernels, ten times slower than the others
        if micro and self.large:
            return RuntimeProof(runtime=runtime.name, not_run="it is too large for a microcontroller")
        return self._on(runtime, self.inputs[: 1 if micro else None])

    def _on(self, runtime: LocalRuntime, inputs: Sequence[list[np.ndarray]]) -> RuntimeProof:
        try:
            answers = _answers(runtime, self.model, inputs)
            results = _answers(runtime, self.exposed.content, inputs)
        except RuntimeFailure as error:
            return self._refused(runtime, error)
        try:
            found = [
                difference
                for sample, given in zip(inputs, results, strict=True)
                for difference in differences(self.exposed, sample, given, runtime.profile)
            ]
        except RuntimeFailure as error:  # the emulator knows that these kernels compute something else
            return self._known(runtime, error)
        for difference in found:
            if difference.largest > _allowed(difference, runtime):
                raise _differs(difference, runtime)
        if not keeps(self.exposed, results):
            raise ProofError(
                expected="variables that hold what they were assigned at the invocation before",
                found="others",
                where=f"the file on {runtime.name}",
                fix=_REPORT,
            )
        if any(
            not np.array_equal(a, b)
            for answer, result in zip(answers, results, strict=True)
            for a, b in zip(answer, result[: self.exposed.outputs], strict=True)
        ):
            raise ProofError(
                expected="the same outputs whether or not the results of its operators are looked at",
                found="others",
                where=f"the file on {runtime.name}",
                fix=_REPORT,
            )
        return RuntimeProof(
            runtime=runtime.name,
            samples=len(inputs),
            elements=sum(d.elements for d in found),
            differing=sum(d.differing for d in found),
            largest=max((d.largest for d in found), default=0),
        )

    def _known(self, runtime: LocalRuntime, error: RuntimeFailure) -> RuntimeProof:
        """The operator table does not say that this runtime computes the file right. Raises ProofError if it must."""
        nodes = self.exposed.graph.nodes
        wrong = next((n for n in nodes if computation(n).on(runtime.profile) is Support.WRONG), None)
        if runtime.profile.runtime in self.required:
            raise ProofError(
                expected=error.expected, found=error.found, where=f"{error.where} on {runtime.name}", fix=_REPORT
            ) from error
        lack = error.found if wrong is None else f"its kernel of {wrong.op.name} '{wrong.name}' is wrong"
        return RuntimeProof(runtime=runtime.name, wrong=wrong is not None, not_run=lack)

    def _refused(self, runtime: LocalRuntime, error: RuntimeFailure) -> RuntimeProof:
        """An older or smaller runtime may have no such kernel: the proof names the first operator that it fails at.

        Raises ProofError for a runtime that must run the file, and for one that hangs or ends, but on a microcontroller
        that the file is not for.
        """
        first, words = self._first_failing(runtime), " ".join(error.found.split())
        if runtime.profile.runtime in self.required or (isinstance(error, WorkerLost) and runtime.profile != TFLM):
            raise ProofError(
                expected=f"a file that {runtime.name} runs", found=words, where=first, fix=_REPORT
            ) from error
        return RuntimeProof(runtime=runtime.name, not_run=f"it refuses {first} ({words})")

    def _first_failing(self, runtime: LocalRuntime) -> str:
        """The operator up to which the file cannot be run, though it can up to the one before."""
        operators = parse(self.model).main.operators
        runs, fails = 0, len(operators)
        while fails - runs > 1:
            middle = (runs + fails) // 2
            try:
                _answers(runtime, expose(self.model, middle).content, self.inputs)
                runs = middle
            except RuntimeFailure:
                fails = middle
        tensors, last = parse(self.model).main.tensors, operators[fails - 1]
        return f"{last.code} '{tensors[last.outputs[0]].name}'" if last.outputs else last.code


def _answers(runtime: LocalRuntime, model: bytes, samples: Sequence[list[np.ndarray]]) -> list[list[np.ndarray]]:
    """The outputs for each sample."""
    session = runtime.load(model)
    try:
        return [session.invoke(inputs) for inputs in samples]
    finally:
        session.close()


def _allowed(difference: Difference, runtime: LocalRuntime) -> int:
    """How many steps the results of an operator may be off the emulator's."""
    node = difference.node
    return node.op.xnnpack_steps(node.attrs, node.in_types, node.out_types) if runtime.kernels == "xnnpack" else 0


def _differs(difference: Difference, runtime: LocalRuntime) -> ProofError:
    allowed = _allowed(difference, runtime)
    return ProofError(
        expected=f"the emulator's results{f' within {allowed} step' if allowed else ''} on {runtime.name}",
        found=f"{difference.differing} of {difference.elements} elements off, by at most {difference.largest} steps",
        where=str(difference),
        fix=_REPORT,
    )


def _inputs(graph: Graph, samples: Samples | None, seed: int) -> Iterator[list[np.ndarray]]:
    """Inputs of single invocations."""
    if samples is None or not len(samples):
        rng = np.random.default_rng(seed)
        for _ in range(_SAMPLES):
            yield [_random(value, rng) for value in graph.own_inputs]
        return
    batch = graph.inputs[0].shape[0] if graph.inputs and graph.inputs[0].shape else 1
    for arrays in itertools.islice(samples.batches(max(1, batch)), _SAMPLES):
        own = arrays[: len(graph.own_inputs)]
        yield [to_integers(x, v.dtype, v.quant) for x, v in zip(own, graph.own_inputs, strict=True)]


def _random(value: Value, rng: np.random.Generator) -> np.ndarray:
    """Over the whole range of an input, which for one in float is that of the integers that are made of it."""
    quant = value.quant or next((n.output.quant for n in value.consumers if n.op.is_conversion), None)
    dtype = value.dtype.numpy
    if value.dtype.is_float:
        low, high = quant.bounds if quant is not None else (-1.0, 1.0)
        return rng.uniform(low, high, value.shape).astype(dtype)
    if quant is None:
        return rng.integers(0, _INDICES, value.shape).astype(dtype)
    return rng.integers(quant.qmin, quant.qmax + 1, value.shape).astype(dtype)
