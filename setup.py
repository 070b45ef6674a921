"""Builds what is installed: one import package, `intact`, with the rooms below it, without tests.

In the repository the rooms `ir`, `passes`, `converter` and `tools` stand at the root and import each other by these names. In a
wheel they are `intact.ir`, `intact.passes` and so on, so that nobody's own `tools` is disturbed: the imports are
rewritten as the files are copied. An editable install (tools/setup.sh) takes the repository as it is.
"""

from __future__ import annotations

import ast
import re
import shutil
import sys
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOMS = ("ir", "passes", "converter", "tools")
EDITABLE = "editable_wheel" in sys.argv
COMMANDS = [
    "__init__",
    "_command",
    "main",
    "convert",
    "convert_*",
    "inspect",
    "inspect_*",
    "evaluate",
    "benchmark",
    "survey",
    "completion",
]
# Beside the modules: data, and what Bazel, CMake and Gradle read.
FILES = (
    "WORKSPACE", "BUILD", "README.md", "pyproject.toml", "requirements.txt", "ir/BUILD", "passes/BUILD", "converter/BUILD",
    "converter/shipped/*", "converter/report/templates/*", "tools/BUILD", "tools/intact.*", "tools/bazel/**/*",
)  # fmt: skip


def in_package(source: str, where: str = "a module") -> str:
    """Source text whose imports of a room are imports of that room in `intact`.

    Raises ValueError for `import ROOM.MODULE` without `as`, which binds the name of the room, and for programs in strings.
    """
    lines = source.splitlines(keepends=True)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and _is_of_room(node.module):
            _replace(lines, node, rf"from\s+{node.module}\b", f"from intact.{node.module}")
        elif isinstance(node, ast.Import):
            for alias in (a for a in node.names if _is_of_room(a.name)):
                if len(node.names) > 1 or ("." in alias.name and not alias.asname):
                    raise ValueError(f"{where}, line {node.lineno}: write `from ... import` or `import ... as`")
                own = f"import intact.{alias.name}" if alias.asname else f"from intact import {alias.name}"
                _replace(lines, node, rf"import\s+{alias.name}\b", own)
        elif isinstance(node, ast.Constant) and re.search(rf"\b(from|import) ({'|'.join(ROOMS)})\b", str(node.value)):
            raise ValueError(f"{where}, line {node.lineno}: in text, name a module by its __name__")
    return "".join(lines)


def _is_of_room(module: str | None) -> bool:
    return (module or "").partition(".")[0] in ROOMS


def _replace(lines: list[str], node: ast.stmt, pattern: str, text: str) -> None:
    line, at = lines[node.lineno - 1].encode(), node.col_offset  # counted in bytes
    rest, count = re.subn(pattern, text, line[at:].decode(), count=1)
    assert count == 1, (line, pattern)
    lines[node.lineno - 1] = line[:at].decode() + rest


def is_installed(package: str, module: str) -> bool:
    """Whether a module is there for users, not for tests, development or the repository."""
    if package == "intact.tools" and not any(Path(module).match(name) for name in COMMANDS):
        return False
    return not re.search(r"(_test|_testing)$|^conftest$", module) and (package, module) != ("intact", "checkout")


class BuildPackage(build_py):
    """Copies the rooms into the package."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        found = super().find_package_modules(package, package_dir)
        return [entry for entry in found if is_installed(package, entry[1])]

    def build_module(self, module: str, module_file: str, package: str | list[str]) -> tuple[str, bool]:
        built, copied = super().build_module(module, module_file, package)
        source = Path(module_file).read_text(encoding="utf-8")
        Path(built).write_text(in_package(source, module_file), encoding="utf-8")
        return built, copied

    def run(self) -> None:
        shutil.rmtree(self.build_lib, ignore_errors=True)  # what an older build left there would be packed too
        super().run()
        home = Path(self.build_lib) / "intact"
        for path in (path for pattern in FILES for path in Path().glob(pattern) if path.is_file()):
            (home / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, home / path)
        (home / "py.typed").touch()


def packages() -> dict[str, str]:
    """The packages of the wheel, and their folders here."""
    inner = find_packages(include=[f"{room}{rest}" for room in ROOMS for rest in ("", ".*")], exclude=["tools.*"])
    return {"intact": "intact", **{f"intact.{name}": name.replace(".", "/") for name in inner}}


if __name__ == "__main__":
    if EDITABLE:
        setup(packages=find_packages(include=[f"{r}{rest}" for r in ("intact", *ROOMS) for rest in ("", ".*")]))
    else:
        setup(packages=list(packages()), package_dir=packages(), cmdclass={"build_py": BuildPackage})
