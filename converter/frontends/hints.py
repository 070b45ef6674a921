"""What to do about operators of TFLite that no integer file can have here, by kind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_DRAW = "random draws: draw in training only, or end the model before the draw with --output_nodes (a VAE's mean)"
_TEXT = "tables and text: look words up before the network, and give it their numbers"
_FIXES: Mapping[str, str] = {
    **dict.fromkeys(("RANDOM_UNIFORM", "RANDOM_STANDARD_NORMAL", "MULTINOMIAL"), _DRAW),
    **dict.fromkeys(("HASHTABLE", "HASHTABLE_FIND", "HASHTABLE_LOOKUP", "HASHTABLE_IMPORT"), _TEXT),
}


def fix_for(codes: Iterable[str]) -> str:
    """What to do about operators of these codes."""
    found = list(dict.fromkeys(_FIXES[code] for code in codes if code in _FIXES))
    return "; ".join(found) or "end the model before them with --output_nodes, or export it without them"
