"""The operator table: every `OpDef`, gathered from the families of this folder."""

from __future__ import annotations

import importlib
import pkgutil

from ir.opdef import OpDef

FAMILIES = tuple(
    importlib.import_module(f"{__name__}.{module.name}")
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda m: m.name)
    if not module.name.endswith("_test") and not module.name.startswith("_")
)

OPERATORS: tuple[OpDef, ...] = tuple(
    dict.fromkeys(value for family in FAMILIES for value in vars(family).values() if isinstance(value, OpDef))
)
TABLE: dict[str, OpDef] = {op.name: op for op in OPERATORS}
assert len(TABLE) == len(OPERATORS), "two operators of one name"
