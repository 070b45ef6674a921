"""A file as an array in C, for programs that have no file system: microcontrollers read the model where it lies.

For TensorFlow Lite Micro the header also tells the size of the arena, and registers the file's operators.

As `xxd -i` writes it (`unsigned char NAME[]`, `unsigned int NAME_len`), but constant, so that it stays in flash, and
aligned to 16 bytes, which TFLite's readers ask of a model in memory. Both files are C11 and C++11.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePath

from converter.micro import MicroNeeds
from ir.errors import OptionError

SUFFIXES = (".c", ".cc", ".cpp")
ALIGNMENT = 16  # bytes
_PER_LINE = 12


@dataclass(frozen=True, kw_only=True)
class CArray:
    """The two texts; `name` is the array's, `name_len` its length in bytes."""

    name: str
    source: str
    header: str


def header_path(source: str) -> str:
    """Where the header of a source goes: beside it. Raises OptionError for a path that is no C or C++ source."""
    path = PurePath(source)
    if path.suffix not in SUFFIXES:
        raise OptionError(
            expected=f"a file that ends in {', '.join(SUFFIXES)}",
            found=f"'{path.name}'",
            where="--c_array",
            fix="name the source so; the header goes beside it",
        )
    return str(path.with_suffix(".h"))


def identifier(text: str) -> str:
    """A name for the array from any text, a file's name for instance; `g_` keeps it clear of keywords and digits."""
    return "g_" + (re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_") or "model")


def c_array(content: bytes, source: str, micro: MicroNeeds | None = None) -> CArray:
    """The source and the header for a file's bytes.

    Args:
      source: where the source goes; the array is called like it. Raises OptionError as `header_path`.
      micro: what TensorFlow Lite Micro needs for it, where that will run it.
    """
    header = PurePath(header_path(source)).name
    name = identifier(PurePath(source).stem)
    lines = (content[i : i + _PER_LINE] for i in range(0, len(content), _PER_LINE))
    rows = "\n".join("  " + " ".join(f"0x{byte:02x}," for byte in line) for line in lines)
    guard = f"INTACT_{name.upper()}_H_"
    return CArray(
        name=name,
        source=(
            f'// A TensorFlow Lite model as an array, made by Intact: do not edit.\n#include "{header}"\n\n'
            "#ifndef __cplusplus\n#include <stdalign.h>\n#endif\n\n"
            f"alignas({ALIGNMENT}) const unsigned char {name}[] = {{\n{rows}\n}};\n"
            f"const unsigned int {name}_len = {len(content)};\n"
        ),
        header=(
            "// A TensorFlow Lite model as an array, made by Intact: do not edit.\n"
            f"#ifndef {guard}\n#define {guard}\n\n"
            '#ifdef __cplusplus\nextern "C" {\n#endif\n\n'
            f"// Aligned to {ALIGNMENT} bytes.\nextern const unsigned char {name}[];\n"
            f"extern const unsigned int {name}_len;\n\n"
            f"#ifdef __cplusplus\n}}\n#endif\n\n{'' if micro is None else _for_micro(name, micro)}#endif\n"
        ),
    )


def _for_micro(name: str, needs: MicroNeeds) -> str:
    """The size of the arena, the number of operators, and a function that registers them."""
    calls = " &&\n         ".join(f"resolver.{method}() == 0" for method in needs.register)
    return (
        f"// Of TensorFlow Lite Micro: bytes of the arena, {'used by' if needs.measured else 'estimated of'} its reference "
        f"kernels with pointers of 64 bits;\n// with 32 bits less is enough, other kernels may need more.\n"
        f"enum {{ {name}_arena_bytes = {needs.arena_bytes}, {name}_operators = {len(needs.register)} }};\n\n"
        "#ifdef __cplusplus\n"
        f"// Registers the operators: tflite::MicroMutableOpResolver<{name}_operators> resolver; false where it refuses one.\n"
        f"template <typename Resolver>\ninline bool {name}_register(Resolver& resolver) {{\n"
        f"  return {calls or 'true'};\n}}\n#endif\n\n"
    )
