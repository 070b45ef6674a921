"""Runs what the README and the guides tell their readers to type, and compares what it prints.

`python -m tools.docs_commands [--show] PAGE...` runs pages in fresh copies of the repository. docs/guides/README.md says which
blocks of a page are run and how their output is compared.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from markdown_it import MarkdownIt

from tools._process import run_printed

ROOT = Path(__file__).absolute().parent.parent  # not resolved: in a sandbox of Bazel the files are links

# Commands that are not run from here, and who runs them.
ELSEWHERE = {
    "bash tools/test.sh": "it runs this test",
    "bazel build //...": "a layer of tools/test.sh runs it",
    "bazel test //...": "it runs the tests that tools/test.sh runs, this one among them",
}

_LEFT_BEHIND = (".git", ".venv", ".hypothesis", ".*_cache", "build", "bazel-*", "*.egg-info")
_FILE = re.compile(r"# ([\w./-]+\.\w+)\n")
_SCRIPT = re.compile(r'^(\w+) = "([\w.]+):run"$', re.MULTILINE)
_MARK = "--- block {} ---"
OUTPUT = "output.txt"  # beside the copy: all that a page printed


@dataclass(frozen=True, kw_only=True)
class Block:
    """One fenced block.

    Attributes:
      line: of the page where it begins, counted from 1.
      language, options: `sh exit=1` is "sh" and `{"exit": "1"}`.
      printed: the `text` blocks below it, up to the next block that is run here.
    """

    line: int
    language: str
    options: dict[str, str]
    text: str
    printed: list[Block] = field(default_factory=list)

    @property
    def file(self) -> str | None:
        """The file that a `python` block is written to instead of being run."""
        named = _FILE.match(self.text) if self.language == "python" else None
        return named[1] if named else None

    @property
    def missing(self) -> str | None:
        """What it needs and this machine has not."""
        need = self.options.get("needs")
        if need is None or ((ROOT / need).exists() if "/" in need else shutil.which(need) or _is_module(need)):
            return None
        return need


def _is_module(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page; those of `text` are also in `printed` of the block that prints them."""
    found: list[Block] = []
    runs: Block | None = None
    for token in MarkdownIt().parse(page):
        if token.type != "fence":
            continue
        assert token.map is not None
        language, *words = token.info.split() or [""]
        options = dict(word.partition("=")[::2] for word in words)
        block = Block(line=token.map[0] + 1, language=language, options=options, text=token.content)
        found.append(block)
        if language in ("sh", "python") and not set(block.text.splitlines()) <= set(ELSEWHERE):
            runs = block
        elif language == "text" and runs is not None:
            runs.printed.append(block)
    return found


def copy_repository(to: Path) -> Path:
    """A copy of the working tree in the folder `to`, with an environment of its own that shares this one's packages."""
    root = to / "intact"
    shutil.copytree(ROOT, root, ignore=shutil.ignore_patterns(*_LEFT_BEHIND))
    shared = ROOT.parent / "shared"
    if shared.is_dir():
        (to / "shared").symlink_to(shared)
    here, prefix = root / ".venv", Path(sys.prefix)
    (here / "bin").mkdir(parents=True)
    for entry in (*prefix.iterdir(), *(prefix / "bin").iterdir()):
        place = here / entry.relative_to(prefix)
        if not place.exists():
            place.symlink_to(entry)
    for name, module in _SCRIPT.findall((root / "pyproject.toml").read_text()):
        script = here / "bin" / name
        if not script.exists():  # in an environment into which the project is not installed
            script.write_text(f'#!/bin/sh\nexec "{here}/bin/python" -c "from {module} import run; run()" "$@"\n')
            script.chmod(0o755)
    (here / "set-up.stamp").unlink(missing_ok=True)
    contents = subprocess.check_output(
        "cat requirements.txt pyproject.toml | sha256sum", shell=True, cwd=root, text=True
    )
    (here / "set-up.stamp").write_text(f"{root}\n{contents.split()[0]}\n")  # so tools/setup.sh finds nothing to do
    return root


def run_page(page: Path, root: Path) -> tuple[list[str], list[str]]:
    """Runs the blocks of a page in the copy `root`: `(what is wrong, what was left out and why)`."""
    parts, ran, left_out = ["set -eo pipefail"], [], []
    for number, block in enumerate(blocks(page.read_text())):
        if block.language not in ("sh", "python"):
            continue
        if block.missing is not None:
            left_out.append(f"line {block.line}: needs {block.missing}")
            continue
        parts.append(f"echo; echo '{_MARK.format(number)}'; {_as_shell(block, root, number, left_out)}")
        ran.append((number, block))
    script = root.parent / "page.sh"
    script.write_text("\n".join([*parts, f"echo; echo '{_MARK.format('end')}'", ""]))
    _, printed = run_printed(["bash", str(script)], root, _environment(root))
    (root.parent / OUTPUT).write_text(printed)
    return _judge(printed, ran), left_out


def _as_shell(block: Block, root: Path, number: int, left_out: list[str]) -> str:
    """The lines of bash that run a block."""
    if block.file is not None:
        content = root.parent / f"block_{number}"
        content.write_text(block.text.partition("\n")[2].lstrip("\n"))
        return f"mkdir -p '{Path(block.file).parent}' && cp '{content}' '{block.file}'"
    if block.language == "python":
        program = root.parent / f"block_{number}.py"
        program.write_text(block.text)
        text = f"python '{program}'"
    else:
        lines = block.text.splitlines()
        left_out += [f"{line.strip()}: {ELSEWHERE[line.strip()]}" for line in lines if line.strip() in ELSEWHERE]
        text = "\n".join(line for line in lines if line.strip() not in ELSEWHERE)
    expected = block.options.get("exit", "0")
    if expected == "0":
        return text
    return f"set +e\n(\nset -e\n{text}\n)\nstatus=$?\nset -e\n[ $status = {expected} ]"


def _environment(root: Path) -> dict[str, str]:
    """As after `tools/setup.sh`, with its `bin` on the PATH; a rich table is as wide as where there is no terminal."""
    kept = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "VIRTUAL_ENV") and not k.startswith("PYTEST")}
    return kept | {
        "PATH": f"{root}/.venv/bin:{os.environ['PATH']}",
        "PYTHONPATH": str(root),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "KERAS_BACKEND": "tensorflow",
    }


def _judge(output: str, ran: list[tuple[int, Block]]) -> list[str]:
    """What is wrong: the block that ended the page too early, and lines that were promised and did not come."""
    wrong = []
    for number, block in ran:
        own, ended, _ = output.partition(f"\n{_MARK.format(number)}\n")[2].partition(_MARK.partition("{")[0])
        if not ended:
            return [
                *wrong,
                f"line {block.line}: did not end with the status it should, and printed\n{own.strip()[-3000:]}",
            ]
        for printed in block.printed:
            line = missing_line(printed.text, own, numbers=printed.options.get("numbers") != "vary")
            if line is not None:
                wrong.append(f"line {printed.line}: not printed: {line}\nWhat was printed:\n{own.strip()[-6000:]}")
    return wrong


# --- comparing lines ------------------------------------------------------------------------------------------

_FRAME = re.compile(r"[\u2500-\u257f]+")
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)")
_UNIT_OF_TIME = re.compile(r"\s*(?:s|ms|us|µs|min|seconds?|minutes?)\b")
_HEADING_OF_TIME = re.compile(r"\b(?:s|ms|seconds|time)\b")


def missing_line(expected: str, found: str, *, numbers: bool = True) -> str | None:
    """The first line of `expected` that does not come in `found`, in that order; None if all come."""
    left = iter(_without_times(found.splitlines()))
    for line, plain in zip(expected.splitlines(), _without_times(expected.splitlines()), strict=True):
        if plain and plain != "..." and not any(_alike(plain, other, numbers=numbers) for other in left):
            return line
    return None


def _without_times(lines: list[str]) -> list[str]:
    """Lines without frames of tables, and without the cells below headings of times."""
    timed: list[int] = []
    plain = []
    for line in lines:
        if "┃" in line:
            timed = [i for i, cell in enumerate(line.split("┃")) if _HEADING_OF_TIME.search(cell)]
        cells = line.split("│")
        if len(cells) > 1:
            line = "│".join("" if i in timed else cell for i, cell in enumerate(cells))
        plain.append(" ".join(_FRAME.sub(" ", line).split()))
    return plain


def _alike(expected: str, found: str, *, numbers: bool) -> bool:
    words = _NUMBER.split(expected)
    pattern = [_NUMBER.pattern if i % 2 else re.escape(w).replace(r"\.\.\.", ".*") for i, w in enumerate(words)]
    match = re.fullmatch("".join(pattern), found)
    if match is None or not numbers:
        return match is not None
    pairs = zip(words[1::2], match.groups(), words[2::2], strict=True)
    return all(_UNIT_OF_TIME.match(unit) or _near(number, other) for number, other, unit in pairs)


def _near(expected: str, found: str) -> bool:
    """Whole numbers are equal; decimals are within 5 % (processors add in other orders), or 1 in the last place shown."""
    if "." not in expected or "." not in found:
        return expected == found
    last_place = 10.0 ** -len(expected.partition(".")[2])
    return abs(float(expected) - float(found)) <= max(0.05 * float(expected), 1.01 * last_place)


def main() -> int:
    """Runs the pages named; prints what is wrong with each, and with `--show` all that they print."""
    status = 0
    for name in sys.argv[1:]:
        if name == "--show":
            continue
        with tempfile.TemporaryDirectory() as folder:
            wrong, left_out = run_page(Path(name), copy_repository(Path(folder)))
            if "--show" in sys.argv:
                print((Path(folder) / OUTPUT).read_text())
        status |= bool(wrong)
        print(f"{name}: {'differs' if wrong else 'as written'}", *wrong, *left_out, sep="\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
