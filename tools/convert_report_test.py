"""`convert --report` as its users meet it: the page in a browser, the data beside it, folders that cannot be written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import pytest
from keras import layers
from PIL import Image

from converter.report.browser_testing import Page, browsing, faults, screenshot_folder
from converter.report.overlay import LATENCY, SIZE, SQNR
from converter.runtimes.choose import timed_here
from converter.tflite.model_file import load
from tools import convert as command
from tools._runs_testing import Run, runner

SHIPPED = Path(__file__).resolve().parents[1] / "converter" / "shipped"
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Iterator[Page]:
    with browsing(tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.fixture
def convert(tmp_path, monkeypatch, capsys) -> Callable[..., Run]:
    return runner(command, tmp_path, monkeypatch, capsys)


def test_the_page_of_the_shipped_network(convert, page, tmp_path):
    done = convert(
        "--model=digits_mobilenet_v2", f"--calibration_data={SHIPPED / 'digits_calibration.npz'}", "--pipeline=fast",
        "--calibration_samples=20", "--report=pages/digits", "--output=digits.tflite", "--target=edgetpu",
    )  # fmt: skip
    assert done.status == 0, done.err
    causes = json.loads((tmp_path / "pages" / "digits" / "report.json").read_text())["analysis"]["causes"]
    said = f"likely cause of what is lost: {causes[0]['title']}; " if causes else ""
    assert said in done.out and ("likely cause" in done.out) is bool(causes) and "index.html" not in done.err
    assert re.search(r"^report: pages/digits/index\.html, \d+\.\d s$", done.out, re.MULTILINE)
    folder = tmp_path / "pages" / "digits"
    assert sorted(p.name for p in folder.iterdir()) == sorted(["index.html", "report.json", SQNR, SIZE, LATENCY])
    tensors = {t.name for t in load(tmp_path / "digits.tflite").main.tensors}
    for name in (SQNR, SIZE, LATENCY):
        assert set(json.loads((folder / name).read_text())["results"]) <= tensors
    assert (folder / "index.html").stat().st_size < 5_000_000
    data = json.loads((folder / "report.json").read_text())
    measured = data["analysis"]["layers"]
    assert len(measured) == 65 and data["headline"]["samples"] == 20 and data["target"]["mapped"] == 65
    assert data["latency"][0]["integer"]["median_ms"] > 0 and data["latency"][0]["float"]["size_bytes"] > 1_000_000
    assert [pair["integer"]["runtime"] for pair in data["latency"]] == list(timed_here())
    assert data["latency"][0]["integer"]["runtime"] == "ai-edge-litert/xnnpack"
    weighted = sum(layer["weight_low"] is not None for layer in measured)
    assert weighted == 53
    for width, dark in ((1280, False), (390, True)):
        page.open(folder / "index.html", width=width, dark=dark)
        assert faults(page) == []
        assert page.evaluate("document.querySelectorAll('svg.plot').length") == 1 + 65 + weighted
        assert page.evaluate("document.images.length") == len(data["analysis"]["worst_inputs"]) > 0
        assert page.evaluate("document.querySelectorAll('svg.network .row').length") == 66
        page.evaluate("document.getElementById('close-all').click()")
        shot = page.screenshot(screenshot_folder() / f"digits_{width}.png")
        with Image.open(shot) as image:
            assert image.width == width and len(image.convert("RGB").getcolors(1 << 24)) > 100


def test_the_page_without_data_of_a_layer_whose_name_is_markup(convert, page, tmp_path):
    keras.utils.set_random_seed(0)
    x = keras.Input((8, 8, 3), name="image")
    y = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(4, 3, name=HOSTILE)(x)))
    keras.Model(x, layers.Dense(3)(layers.GlobalAveragePooling2D()(y))).save(tmp_path / "m.keras")
    done = convert("--model=m.keras", "--preprocess=tf", "--report=report", "--quiet")
    assert done.status == 0, done.err
    page.open(tmp_path / "report" / "index.html", width=390)
    assert faults(page) == []
    assert page.evaluate("document.images.length") == 0
    assert page.evaluate("document.querySelector('svg.network').textContent").count(HOSTILE) > 0
    assert "Nothing was compared" in page.evaluate("document.querySelector('.lead').textContent")
    assert "Nothing was measured" in page.evaluate("document.getElementById('causes').textContent")
    assert "No layer was measured" in page.evaluate("document.getElementById('worst-layers').textContent")
    assert page.evaluate("document.querySelectorAll('svg.plot').length") == 2  # the weights of two layers


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(convert, tmp_path):
    (tmp_path / "taken").write_text("a file")
    done = convert("--model=digits_mobilenet_v2", "--report=taken", "--output=x.tflite")
    assert done.status == 1
    assert "taken: expected a folder, or a place for one, found 'taken' is no folder" in " ".join(done.err.split())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["taken"]
