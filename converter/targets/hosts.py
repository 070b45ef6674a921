"""What the runtimes that run a target's files make of a file: combinations that they compute wrong, or refuse."""

from __future__ import annotations

from collections.abc import Iterable

from converter.targets.site import Site, sites
from converter.tflite.records import ModelFile
from ir.kernels import Support
from ir.profile import Profile, Runtime

_SHOWN = 3
_NAMED = (Support.WRONG, Support.ABSENT)


def kernel_notes(model: ModelFile, profiles: Iterable[Profile]) -> tuple[str, ...]:
    """A sentence for each runtime, kind of operator and types that it is known not to compute right."""
    groups: dict[str, list[Site]] = {}
    for profile in profiles:
        for site in sites(model):
            asked = site.computation()
            if asked is not None and asked.on(profile) in _NAMED:
                what = f"{site.record.code} of {asked.types}, {asked.described}"
                groups.setdefault(f"{what}: {asked.problem(profile)}; {asked.fix(profile)}", []).append(site)
    return tuple(f"{sentence} ({_places(found)})" for sentence, found in groups.items())


def _places(found: list[Site]) -> str:
    shown = ", ".join(f"#{s.index} '{s.layer}'" for s in found[:_SHOWN])
    return shown + (f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")


def default_profiles(runtimes: Iterable[Runtime]) -> tuple[Profile, ...]:
    """The kernels that runtimes use unless told otherwise."""
    return tuple(Profile(runtime=runtime) for runtime in runtimes)
