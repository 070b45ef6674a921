"""Every command of the README and of the guides runs, and prints what stands below it; what they name exists."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest

from converter.runtimes.choose import choose_runtime
from tools.docs_commands import ELSEWHERE, ROOT, blocks, copy_repository, missing_line, run_page

if not (ROOT / "docs" / "guides").is_dir():
    pytest.skip("the whole repository is not here (Bazel's copy has no docs/)", allow_module_level=True)

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "guides").glob("*.md"))]
MEASUREMENTS = ROOT / "docs" / "measurements.md"  # its commands take hours: only their words are checked
ALL = [
    *PAGES,
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "methods").glob("*.md")),
]
SHOWN_ONLY = r"text|console|json|toml|yaml|csv|xml|cmake|groovy|kotlin|java|c|cpp|starlark"
OF_OTHERS = {"action_env"}  # flags of other programs: Bazel's


def called(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=called)
def test_what_a_page_tells_to_type(page, tmp_path):
    if not any(block.language in ("sh", "python") for block in blocks(page.read_text())):
        return
    wrong, left_out = run_page(page, copy_repository(tmp_path))
    assert not wrong, "\n".join(wrong)
    missing = [text for text in left_out if "needs " in text]
    if missing:
        pytest.skip(f"all but: {'; '.join(missing)}")


@pytest.mark.parametrize("page", PAGES, ids=called)
def test_every_block_says_what_it_is(page):
    for block in blocks(page.read_text()):
        assert re.fullmatch(f"sh|python|{SHOWN_ONLY}", block.language), f"line {block.line}: '{block.language}'"
        assert set(block.options) <= {"exit", "needs", "numbers"}, f"line {block.line}: {block.options}"


def test_what_is_not_run_is_still_written_somewhere():
    text = "\n".join(page.read_text() for page in PAGES)
    assert [command for command in ELSEWHERE if f"\n{command}\n" not in text] == []


@pytest.mark.parametrize("page", ALL, ids=called)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def console_commands() -> list[str]:
    return re.findall(r'^(\w+) = "intact\.tools[\w.]+:run"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)


def test_the_readme_names_every_command():
    commands = console_commands()
    table = (ROOT / "README.md").read_text().partition("\n## Commands\n")[2]
    assert (
        len(commands) >= 6
        and [n for n in commands if n != "intact" and not re.search(rf"^\| `intact {n}\b", table, re.MULTILINE)] == []
    )


def flags_of(module: Path) -> set[str]:
    """The flags that a command defines or looks for, and those of the modules of tools that it imports."""
    found = {"help"}
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr.startswith("DEFINE_"):
            found.add(str(ast.literal_eval(node.args[0])))
        elif isinstance(node, ast.Constant) and re.fullmatch(r"--[a-z_]+", str(node.value)):
            found.add(str(node.value)[2:])
        elif isinstance(node, ast.ImportFrom) and str(node.module).startswith("tools."):
            found |= flags_of(ROOT / f"{str(node.module).replace('.', '/')}.py")
    return found


def unknown_flags(text: str, known: set[str]) -> list[str]:
    named = re.findall(r"(?<![\w-])--([a-z]\w*)", text)
    return [flag for flag in named if flag not in known and flag.removeprefix("no") not in known]


def test_the_measurements_name_commands_that_exist():
    commands = re.findall(r"^(?:\$ )?python -m tools\.(\w+)([^#\n]*)", MEASUREMENTS.read_text(), re.MULTILINE)
    assert len(commands) >= 5
    for name, rest in commands:
        assert unknown_flags(rest, flags_of(ROOT / "tools" / f"{name}.py")) == [], f"{name}{rest}"


@pytest.mark.parametrize("page", PAGES, ids=called)
def test_what_is_typed_at_a_device_could_run(page):
    """Sessions with a device (`console`) are not run: commands, flags, files and names of runtimes must exist."""
    typed = [b.text for b in blocks(page.read_text()) if b.language == "console"]
    for line in re.findall(r"^\$ (.*)$", "\n".join(typed), re.MULTILINE):
        name, *arguments = shlex.split(line)
        if name == "intact":
            name = arguments[0]
        elif arguments[:1] == ["-m"]:
            name = arguments[1].removeprefix("tools.")
        if name in console_commands() or arguments[:1] == ["-m"]:
            assert unknown_flags(line, flags_of(ROOT / "tools" / f"{name}.py")) == [], line
        if name == "pytest":
            assert (ROOT / arguments[0]).is_file(), line
        for argument in arguments:
            if argument.startswith("--runtime=") and "config=" not in argument:  # that file must be there
                assert choose_runtime(argument.partition("=")[2]).name, line


@pytest.mark.parametrize("page", ALL, ids=called)
def test_flags_in_sentences_exist(page):
    known = OF_OTHERS.union(*(flags_of(module) for module in (ROOT / "tools").glob("*.py")))
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert unknown_flags(" ".join(re.findall(r"`([^`]+)`", prose)), known) == []


# --- that the harness itself notices -------------------------------------------------------------------------------


def told(tmp_path: Path, text: str) -> tuple[list[str], list[str]]:
    page, root = tmp_path / "page.md", tmp_path / "root"
    page.write_text(text.replace("~~~", "```"))
    root.mkdir()
    return run_page(page, root)


def test_a_page_in_one_shell(tmp_path):
    text = """
~~~sh
mkdir a; cd a; word=two
~~~
~~~python
# made/here.txt
one
~~~
~~~sh
cat made/here.txt
echo $word
~~~
~~~text
one
...
two
~~~
~~~sh exit=3
exit 3
~~~
~~~python
print("the same folder")
raise SystemExit(0)
~~~
~~~text
the same folder
~~~
~~~sh needs=a_program_of_nobody
false
~~~
"""
    wrong, left_out = told(tmp_path, text)
    assert wrong == [] and left_out == ["line 28: needs a_program_of_nobody"]
    assert (tmp_path / "root" / "a" / "made" / "here.txt").read_text() == "one\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("~~~sh\necho one\n~~~\nand\n~~~text\ntwo\n~~~", "line 5: not printed: two"),
        ("~~~sh\necho one\n~~~\n~~~sh\nbash tools/test.sh\n~~~\n~~~text\none\n~~~", None),
        ("~~~sh\necho one; echo two\n~~~\n~~~text\ntwo\none\n~~~", "line 4: not printed: one"),
        ("~~~sh\necho before; false; true\n~~~", "line 1: did not end .*\nbefore"),
        ("~~~sh exit=1\ntrue\n~~~", "line 1: did not end"),
        ("~~~sh exit=1\nfalse; exit 2\n~~~", None),
        ("~~~python\nraise ValueError('so')\n~~~", "line 1: did not end .*\n(.*\n)*ValueError: so"),
        ("~~~sh\ntrue\n~~~\n~~~sh\nexit 0\n~~~\n~~~sh\necho never\n~~~", "line 4: did not end"),
    ],
)
def test_what_is_noticed(tmp_path, text, message):
    wrong, _ = told(tmp_path, text)
    assert (wrong == []) if message is None else re.match(message, wrong[0]), wrong


TABLE = """
┃ pass ┃ changed ┃ seconds ┃
┡━━━━━━╇━━━━━━━━━╇━━━━━━━━━┩
│ fuse │ 3 ranges │ 0.21 │
"""


@pytest.mark.parametrize(
    ("expected", "found", "alike"),
    [
        ("a.tflite: 0.62 MB, 9.1 s", "a.tflite: 0.62 MB, 31 s", True),
        ("a.tflite: 0.62 MB", "a.tflite: 0.68 MB", False),
        ("SQNR 34.9 dB", "SQNR 35.4 dB", True),
        ("SQNR 34.9 dB", "SQNR 37.7 dB", False),
        ("35 CONV_2D", "36 CONV_2D", False),
        ("...: found 3 of ...", "error: /tmp/5: found 3 of them", True),
        ("...: found 3 of ...", "error: /tmp/5: found 4 of them", False),
        ("2 of 3", "2  of 3", True),
        ("two words", "two other words", False),
    ],
)
def test_which_lines_are_alike(expected, found, alike):
    assert (missing_line(expected, f"before\n{found}") is None) is alike


def test_tables_are_alike_but_for_their_times():
    assert missing_line(TABLE.replace("0.21", "7"), TABLE) is None
    assert missing_line(TABLE.replace("3 ranges", "4 ranges"), TABLE) == "│ fuse │ 4 ranges │ 0.21 │"
    assert missing_line("took 4 rounds", "took 5 rounds", numbers=False) is None
