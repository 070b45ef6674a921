"""The array in C: names, and what compilers make of both files."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from converter.c_array import c_array, header_path, identifier
from converter.micro import MicroNeeds
from ir.errors import OptionError

BYTES = np.random.default_rng(0).integers(0, 256, 1003).astype(np.uint8).tobytes()
PRINTS = """#include <stdint.h>
#include <stdio.h>
#include "%s"
int main(void) {
  fwrite(%s, 1, %s_len, stdout);
  return (uintptr_t)%s %% 16 != 0;
}
"""


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("digits", "g_digits"),
        ("mobilenet-v2.1.0", "g_mobilenet_v2_1_0"),
        ("3d model", "g_3d_model"),
        ("int", "g_int"),
        ("größe", "g_gr_e"),
        ("--", "g_model"),
        ("", "g_model"),
    ],
)
def test_names(text, name):
    assert identifier(text) == name


def test_the_header_goes_beside_the_source():
    assert header_path("a/b.v2.cc") == "a/b.v2.h" and header_path("x.c") == "x.h"
    with pytest.raises(OptionError, match=r"--c_array: expected a file that ends in \.c, \.cc, \.cpp, found 'x\.txt'"):
        header_path("a/x.txt")


REGISTERS = """#include <cstdio>
#include "model.h"
struct Resolver {
  int AddConv2D() { return std::puts("AddConv2D") < 0; }
  int AddSoftmax() { return std::puts("AddSoftmax") < 0; }
};
static unsigned char arena[g_model_arena_bytes];
int main() {
  Resolver resolver;
  return !(sizeof arena == 12345 && g_model_operators == 2 && g_model_register(resolver));
}
"""


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
def test_the_header_registers_operators_for_tensorflow_lite_micro(tmp_path):
    needs = MicroNeeds(arena_bytes=12345, measured=True, register=("AddConv2D", "AddSoftmax"))
    array = c_array(BYTES, "model.cc", needs)
    for name, text in (("model.cc", array.source), ("model.h", array.header), ("main.cc", REGISTERS)):
        (tmp_path / name).write_text(text)
    program = tmp_path / "program"
    command = ["g++", "-std=c++11", "-Wall", "-Wextra", "-Werror", "-o", program, "main.cc", "model.cc"]
    subprocess.run(command, check=True, cwd=tmp_path)
    assert subprocess.run([program], stdout=subprocess.PIPE, check=True, text=True).stdout == "AddConv2D\nAddSoftmax\n"


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_the_header_for_tensorflow_lite_micro_is_c_too(tmp_path):
    array = c_array(BYTES, "model.c", MicroNeeds(arena_bytes=12345, measured=False, register=()))
    (tmp_path / "model.h").write_text(array.header)
    (tmp_path / "main.c").write_text('#include "model.h"\nint main(void) { return g_model_arena_bytes != 12345; }\n')
    subprocess.run(["gcc", "-std=c11", "-Wall", "-Werror", "-o", "program", "main.c"], check=True, cwd=tmp_path)
    subprocess.run([tmp_path / "program"], check=True)


@pytest.mark.parametrize(
    ("compiler", "file"),
    [
        (("gcc", "-std=c11"), "3d-model.c"),
        (("g++", "-std=c++11"), "3d-model.cc"),
        (("g++", "-std=c++20"), "3d-model.cpp"),
    ],
)
def test_compilers_take_it(compiler, file, tmp_path):
    if shutil.which(compiler[0]) is None:
        pytest.skip(f"{compiler[0]} is not installed")
    array = c_array(BYTES, f"some/{file}")
    assert array == c_array(BYTES, f"another/{file}")
    source = tmp_path / file
    source.write_text(array.source)
    Path(header_path(str(source))).write_text(array.header)
    main = source.with_name(f"main{source.suffix}")
    main.write_text(PRINTS % ("3d-model.h", array.name, array.name, array.name))
    program = tmp_path / "program"
    subprocess.run([*compiler, "-Wall", "-Wextra", "-Werror", "-o", program, source, main], check=True)
    assert subprocess.run([program], stdout=subprocess.PIPE, check=True).stdout == BYTES
