"""Order, errors, and what runs at once."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from converter.runtimes.machines import on_all
from ir.errors import RuntimeFailure


@dataclass(frozen=True)
class Made:
    name: str
    machine: str = ""


def test_machines_work_at_once_and_one_error_does_not_stop_the_others() -> None:
    both = threading.Barrier(2, timeout=10)
    lock = threading.Lock()  # held by whoever works on machine "a"

    def work(runtime: Made) -> str:
        if runtime.name in ("a1", "b1"):
            both.wait()  # would break if one had to wait for the other
        if runtime.name == "b1":
            raise RuntimeFailure(expected="a device", found="none", where="b1", fix="connect it")
        if runtime.machine == "a":
            assert lock.acquire(blocking=False)
            lock.release()
        return runtime.name

    runtimes = [Made("a1", "a"), Made("b1", "b"), Made("a2", "a"), Made("here")]
    found = on_all(runtimes, work)
    assert [str(f).partition(":")[0] for f in found] == ["a1", "b1", "a2", "here"]
    assert isinstance(found[1], RuntimeFailure)
