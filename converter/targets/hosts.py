"""What the runtimes that run a target's files make of a file: operators that they lack, refuse or compute wrong."""

from __future__ import annotations

from collections.abc import Iterable

from converter.targets.site import Site, sites
from converter.targets.versions import OF_RUNTIME
from converter.tflite.records import ModelFile
from ir.errors import ModelError
from ir.kernels import Support
from ir.profile import Profile, Runtime
from ir.supported import TITLES

_SHOWN = 3
_NAMED = (Support.WRONG, Support.ABSENT)


def kernel_notes(model: ModelFile, runtimes: Iterable[Runtime]) -> tuple[str, ...]:
    """A sentence for each runtime, kind of operator and types that it is known not to compute right."""
    groups: dict[str, list[Site]] = {}
    for runtime in runtimes:
        for site in sites(model):
            if problem := _problem(site, runtime):
                groups.setdefault("{}: {}; {}".format(*problem), []).append(site)
    return tuple(f"{sentence} ({_places(found)})" for sentence, found in groups.items())


def refuse(model: ModelFile, runtimes: Iterable[Runtime]) -> None:
    """Raises ModelError for the first operator that a runtime which must run the file does not compute right."""
    for runtime in runtimes:
        for site in sites(model):
            if problem := _problem(site, runtime):
                what, why, fix = problem
                raise ModelError(
                    expected=f"operators that {TITLES[runtime]} computes right, as --min_runtime_version asks",
                    found=f"{what}: {why}",
                    where=f"#{site.index} '{site.layer}'",
                    fix=f"{fix}, or leave the option out",
                )


def _problem(site: Site, runtime: Runtime) -> tuple[str, str, str] | None:
    """An operator that the default kernels of a runtime do not compute right: what it is, why, and what to do."""
    last = OF_RUNTIME.get(runtime, {}).get(site.op) if site.op is not None else None
    asked, profile = site.computation(), Profile(runtime=runtime)
    if asked is not None and asked.on(profile) in _NAMED:
        return f"{site.record.code} of {asked.types}, {asked.described}", asked.problem(profile), asked.fix(profile)
    if last is not None and site.record.version > last:
        what = f"{site.record.code} in version {site.record.version}"
        return what, f"{TITLES[runtime]} reads versions up to {last}", "use other layers, or another runtime"
    return None


def _places(found: list[Site]) -> str:
    shown = ", ".join(f"#{s.index} '{s.layer}'" for s in found[:_SHOWN])
    return shown + (f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")
