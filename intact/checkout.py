"""In the repository the rooms stand at its root; `intact.passes` is another name for the one module `passes`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

ROOMS = ("ir", "passes", "converter", "tools")


class _Rooms(MetaPathFinder, Loader):
    """Finds `intact.ROOM.MODULE` as the module `ROOM.MODULE`, so that no class exists twice."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, inner = fullname.partition(".")
        return ModuleSpec(fullname, self) if package == "intact" and inner.partition(".")[0] in ROOMS else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(spec.name.partition(".")[2])
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """It has run already; what the import system has written over it is put back."""
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state


def name_rooms() -> None:
    """Makes `import intact.passes` and the like work."""
    sys.meta_path.insert(0, _Rooms())
