"""One name for all commands, in the checkout and installed; typos are found before TensorFlow is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools import main
from tools._runs_testing import ROOT

_SEES_KERAS = """
import sys
sys.argv[0] = "intact"
from tools.main import run
try:
    run()
finally:
    print("keras" in sys.modules or "tensorflow" in sys.modules)
"""


def intact(
    *arguments: str, program: tuple[str, ...] = ("-m", "intact"), folder: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *program, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_help_begins_with_examples_and_names_every_command():
    done = intact("--help")
    assert done.returncode == 0 and not done.stderr
    lines = done.stdout.splitlines()
    assert lines[2].startswith("    intact convert model.keras --calibration_data=")
    commands = [line.split()[0] for line in lines if line.startswith("  ") and line[2] != " "]
    assert commands == ["convert", "inspect", "evaluate", "benchmark", "survey", "completion"]
    assert intact().stdout == done.stdout


@pytest.mark.parametrize("name", ["convert", "inspect", "evaluate", "benchmark", "survey", "completion"])
def test_every_command_shows_examples_before_its_flags(name):
    done = intact(name, "--help")
    assert done.returncode == 0 and f"\n    intact {name} " in done.stdout.partition("\n--")[0]


def test_the_version_is_that_of_the_package():
    assert f'version = "{intact("--version").stdout.split()[1]}"' in (ROOT / "pyproject.toml").read_text()


def test_an_interruption_while_modules_are_imported(monkeypatch, capsys):
    def interrupted(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "command_module", interrupted)
    monkeypatch.setattr(sys, "argv", ["intact", "convert", "model.keras"])
    with pytest.raises(SystemExit) as ended:
        main.run()
    assert ended.value.code == 1
    assert capsys.readouterr().err.strip() == "error: interrupted; nothing was written."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("convrt",), "found 'convrt'; try intact convert."),
        (("model.keras",), "found 'model.keras'; try intact convert model.keras."),
        (("convert", "model.kera"), "model.kera: expected .keras, .h5"),
        (("convert", "--calibration_dat=x"), "Unknown command line flag 'calibration_dat'. Did you mean: calibration_data"),
        (("convert", "digits_mobilenet_v2", "--calibration_data=none/"), "none/: expected a folder of images"),
        (("convert", "digits_mobilenet_v2", "--labels=none.csv"), "none.csv: expected labels"),
        (("convert", "digits_mobilenet_v2", "--pipeline=fats"), "value should be one of <fast|default"),
        (("convert", "digits_mobilenet_v2", "--target=edgtpu"), "value should be one of <cpu|litert|edgetpu"),
        (("survey",), "expected one folder of models, found none; run intact survey FOLDER"),
    ],
)  # fmt: skip
def test_typos_are_found_before_tensorflow_is_imported(arguments, message, tmp_path):
    done = intact(*arguments, program=("-c", _SEES_KERAS), folder=tmp_path)
    assert message in " ".join(done.stderr.split()), done.stderr
    assert (done.returncode, done.stdout) == (1, "False\n")


def completed(words: str) -> list[str]:
    """What bash offers behind the words of a line, of which it also breaks at `=`."""
    script = f"""source <({sys.executable} -m intact completion bash)
    COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _intact; printf '%s\\n' "${{COMPREPLY[@]}}" """
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    return done.stdout.split()


def test_bash_completes_commands_flags_and_values():
    assert completed("intact in") == ["inspect"]
    assert completed("intact convert --calib") == ["--calibration_data=", "--calibration_samples="]
    assert "edgetpu" in completed("intact convert --target =")
    assert completed("intact convert --pipeline = fas") == ["fast"]
    assert completed("intact survey --target ed") == ["edgetpu"]


@pytest.mark.parametrize(("shell", "line"), [("zsh", "bashcompinit"), ("fish", "-l target -x -a 'cpu litert ")])
def test_scripts_of_other_shells(shell, line):
    done = intact("completion", shell)
    assert done.returncode == 0 and line in done.stdout
