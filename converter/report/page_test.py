"""The page as a browser shows it, wide and narrow, light and dark; names of layers stay text whatever they hold."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from converter.analysis.table import Analysis
from converter.report import wording
from converter.report.browser_testing import Page, browsing, faults, screenshot_folder
from converter.report.content import Content
from converter.report.page import breakable, render, with_code
from converter.report.report_testing import BREAKING, HOSTILE, invented, invented_layer

SCREENS = [(1280, False), (1280, True), (390, False), (390, True)]


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Iterator[Page]:
    with browsing(tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("report") / "index.html"
    file.write_text(render(invented()))
    return file


@pytest.mark.parametrize(("width", "dark"), SCREENS)
def test_it_is_drawn_whole_and_nothing_complains(page, file, width, dark):
    page.open(file, width=width, dark=dark)
    assert faults(page) == []
    assert page.evaluate("document.querySelectorAll('svg.plot').length") == 3 + 2 * 5
    shot = page.screenshot(screenshot_folder() / f"invented_{width}_{'dark' if dark else 'light'}.png")
    with Image.open(shot) as image:
        assert image.width == width and len(image.convert("RGB").getcolors(1 << 24)) > 100
        background = image.convert("L").getpixel((2, 2))
    assert background < 60 if dark else background > 240


def test_every_point_of_the_front_stands_with_the_option_that_chooses_it():
    html = render(invented())
    assert re.findall(r"<code>(--mean_bits=[\d.]+)</code></td>", html) == [
        "--mean_bits=4.0000",
        "--mean_bits=4.8000",
        "--mean_bits=5.6000",
        "--mean_bits=8.0000",
    ]
    without = render(dataclasses.replace(invented(), choice=None))
    assert "Bits of layers" in html and "Bits of layers" not in without


def test_points_of_the_front_have_a_time_where_time_is_limited():
    content = invented()
    timed = tuple(dataclasses.replace(p, latency_ms=float(i + 1)) for i, p in enumerate(content.choice.points))
    html = render(dataclasses.replace(content, choice=dataclasses.replace(content.choice, points=timed)))
    assert re.findall(r"<td class=\"n\">(\d) ms</td>", html) == ["1", "2", "3", "4"]
    assert ">time</th>" in html and ">time</th>" not in render(content)


def test_the_check_sees_what_is_wrong(page, file, tmp_path):
    """The judge of the tests above, judged."""
    html = file.read_text()
    for old, new, expected in (
        ('<p class="lead">', '<p style="min-width: 3000px">', "the page is"),
        ('href="#layer-1"', 'href="#layer-99"', "a link to #layer-99"),
        ("data:image/png;base64,", "data:image/png;base64,AAAA", "image 'Sample 3' is not drawn"),
        ('class="plot" role="img" ', 'class="plot" style="display: none" ', "is 0 x 0"),
        ('"use strict";', '"use strict"; throw new Error("broken");', "console: "),
        ("<main id", '<script>console.log("mine")</script><main id', "Content Security Policy"),
        ("<main id", '<img src="https://example.com/x.png"><main id', "Content Security Policy"),
    ):
        assert old in html
        (tmp_path / "bad.html").write_text(html.replace(old, new, 1))
        page.open(tmp_path / "bad.html", width=1280)
        assert any(expected in fault for fault in faults(page)), new


def test_names_stay_text(page, file):
    page.open(file, width=1280)
    assert page.evaluate("document.title") == f"{HOSTILE}.tflite: conversion report"
    assert page.evaluate("document.scripts.length") == 1 and page.evaluate("document.images.length") == 1
    for name in (HOSTILE, BREAKING):
        shown = f"[...document.querySelectorAll('tbody th')].some((e) => e.textContent === {json.dumps(name)})"
        assert page.evaluate(shown), name
        titles = f"[...document.querySelectorAll('svg.network .row title')].some((e) => e.textContent === {json.dumps(name)})"
        assert page.evaluate(titles), name


def test_widths_and_their_cost_are_told(file):
    summary, _, layers = file.read_text().partition('id="layers"')
    assert "Weights of 8 bits in 1 layer, 4 in 4; activations of 8 bits in 5 layers" in summary
    assert str(with_code(f"{wording.sentence(BREAKING)}")) in summary
    cells = re.findall(r'<td class="n" data-value="\d+">(\d x \d)</td>', layers)
    assert cells == ["8 x 8", "4 x 8", "4 x 8", "4 x 8", "4 x 8"]
    assert layers.count(f'<td class="n" data-value="4000">{wording.size(4000)}</td>') == 4


def test_what_the_runtimes_made_of_the_file_is_told(file):
    assert "<p>Run here, operator by operator against the emulator: tflite-runtime/builtin equal; " in file.read_text()


def test_it_needs_nothing_but_itself(file):
    html = file.read_text()
    addresses = set(re.findall(r"""(?:src|href|action|srcset)\s*=\s*"([^"#]*)""", html)) - {""}
    assert all(a.startswith("data:") for a in addresses) and "@import" not in html and "url(http" not in html
    assert set(re.findall(r"https?://[^\s\"'<]+", html)) == {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_the_network_can_be_searched(page, file):
    page.open(file, width=390)
    search = "(() => {{ const e = document.getElementById('search'); e.value = {!r}; e.dispatchEvent(new Event('input')); }})()"
    page.evaluate(search.format("ADD block"))
    assert page.evaluate("document.getElementById('found').textContent") == "1 of 6"
    found = "[...document.querySelectorAll('svg.network .found title')].map((e) => e.textContent)"
    assert page.evaluate(found) == ["block/add"]
    page.evaluate(search.format(""))
    assert page.evaluate(found) == []


def test_the_network_is_coloured_by_bytes_and_latency_and_zooms(page, file):
    page.open(file, width=1280)
    colours = "[...document.querySelectorAll('svg.network .row circle')].map((e) => getComputedStyle(e).fill)"
    shown = "[...document.querySelectorAll('svg.network .ratio')].filter((e) => getComputedStyle(e).display !== 'none').length"
    choose = "(() => {{ const e = document.getElementById('colour'); e.value = {!r}; e.dispatchEvent(new Event('change')); }})()"
    found = {}
    for by in ("sqnr", "size", "time"):
        page.evaluate(choose.format(by))
        found[by] = page.evaluate(colours)
        assert page.evaluate(shown) == 5
        assert page.evaluate(
            "[...document.querySelectorAll('.legend')].filter((e) => !e.hidden).map((e) => e.dataset.by)"
        ) == [by]
    assert len(set(found["size"][1:])) == len(set(found["time"][1:])) == 1, "all have the same share"
    assert found["size"][1] != found["time"][1] and len(set(found["sqnr"])) > 2
    width = "document.querySelector('svg.network').clientWidth"
    before = page.evaluate(width)
    page.evaluate("document.querySelector('[data-zoom=\"1.25\"]').click()")
    assert page.evaluate(width) == pytest.approx(1.25 * before, abs=1)  # whole pixels
    page.evaluate("document.querySelector('[data-zoom=fit]').click()")
    assert page.evaluate(
        "(() => { const e = document.getElementById('canvas'); return e.scrollWidth <= e.clientWidth; })()"
    )


def test_points_of_the_overview_name_their_layers_and_link_to_them(page, file):
    page.open(file, width=1280)
    links = page.evaluate(
        "[...document.querySelectorAll('svg.plot .spot')].map((e) => [e.parentElement.getAttribute('href'), e.textContent])"
    )
    assert len(links) == 2 * 5
    layer = invented().analysis.layers[1]
    assert ["#layer-2", f"{layer.name}: {layer.sqnr_db:.1f} dB with everything before it"] in links
    # A spot lies on the mark that Matplotlib drew: of the first layer's two marks in pixels of the picture.
    boxes = page.evaluate(
        "[...document.querySelectorAll('section#worst-layers svg.plot use')].map((e) => "
        "{ const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })"
    )
    spots = page.evaluate(
        "[...document.querySelectorAll('svg.plot .spot')].map((e) => "
        "{ const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })"
    )
    assert all(min(abs(x - a) + abs(y - b) for a, b in boxes) < 1.5 for x, y in spots)  # a pixel, and rounding


def test_the_head_says_what_was_converted_and_what_to_do(file):
    head = file.read_text().partition("<main")[0]
    assert "<dt>model</dt><dd>&lt;script&gt;" in head and "<dt>seed</dt><dd>0</dd>" in head
    assert "Most likely cause:</strong> Outlier channel." in head and 'class="remedy high"' in head


def test_causes_with_one_remedy_are_one(page, file):
    page.open(file, width=1280)
    assert page.evaluate("document.querySelectorAll('.causes > li').length") == 2
    summary = page.evaluate("document.querySelector('.causes > li.high summary').textContent")
    assert summary == "1 more with the same remedy"
    more = page.evaluate("document.querySelector('.causes > li.high details').textContent")
    assert "Another channel: stem. Too." in " ".join(more.split())


def test_worst_inputs_have_the_names_of_files_and_classes(file):
    text = " ".join(file.read_text().partition('id="worst-inputs"')[2].split())
    assert "cats/<wbr>&lt;script&gt;" in text and "class 7</h3>" in text
    assert '<td class="n">2 two</td>' in text and '<td class="n">0 &lt;script&gt;' in text.replace(" differs", "")


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({"agreement": 0.5}, "do not ship it as it is"),
        ({"agreement": 0.93}, "noticeably worse"),
        ({"integer_accuracy": 0.8}, "do not ship it as it is"),
        ({"agreement": None, "integer_accuracy": None, "sqnr_db": 4.0}, "do not ship it as it is"),
        ({}, ""),
    ],
)
def test_a_bad_result_is_said_in_words(figures, words):
    known = {k: v if v is None or k == "sqnr_db" else {"value": v, "low": 0, "high": 1} for k, v in figures.items()}
    content = dataclasses.replace(invented(), headline={**invented().headline, **known})
    said = wording.judgement(content)[1]
    assert words in said and bool(words) is bool(said)


def test_the_table_sorts_and_a_link_opens_its_layer(page, file):
    page.open(file, width=1280)
    column = "[...document.querySelectorAll('table.sortable tbody tr')].map((r) => Number(r.cells[4].dataset.value))"
    button = "document.querySelectorAll('table.sortable th button')[4].click()"
    page.evaluate(button)
    rising = page.evaluate(column)
    page.evaluate(button)
    assert rising == sorted(rising) and page.evaluate(column) == rising[::-1]
    assert page.evaluate("document.querySelectorAll('th[aria-sort=descending]').length") == 1
    closed = page.evaluate("document.querySelector('details.layer:not([open])').id")
    page.evaluate(f"document.querySelector('a[href=\"#{closed}\"]').dispatchEvent(new MouseEvent('click'))")
    page.evaluate("new Promise((done) => setTimeout(done, 50))")
    assert page.evaluate(f"document.getElementById('{closed}').open")


def test_the_keyboard_reaches_content_and_layers(page, file):
    page.open(file, width=1280)
    page.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.evaluate("document.querySelector('details.layer:not([open]) summary').focus()")
    closed = page.evaluate("document.activeElement.parentElement.id")
    page.press("Enter")
    assert page.evaluate(f"document.getElementById('{closed}').open")
    unreachable = "[...document.querySelectorAll('.scroll')].filter((e) => e.tabIndex !== 0 || !e.ariaLabel).length"
    assert page.evaluate(unreachable) == 0


def test_a_report_of_nothing(page, tmp_path):
    """Without data, without layers that were analysed."""
    empty = Content(title="empty", analysis=Analysis(), rows=invented().rows)
    (tmp_path / "index.html").write_text(render(empty))
    page.open(tmp_path / "index.html", width=390)
    assert faults(page) == []
    assert "Nothing was compared" in page.evaluate("document.querySelector('.lead').textContent")


def test_a_network_of_many_layers_has_figures_of_the_worst(monkeypatch):
    most = 3
    monkeypatch.setattr("converter.report.page.MOST_ILLUSTRATED", most)
    layers = tuple(invented_layer(f"layer_{i}", i) for i in range(most + 2))
    content = invented()
    html = render(dataclasses.replace(content, analysis=dataclasses.replace(content.analysis, layers=layers)))
    assert html.count("<figure>") == 3 + 2 * most  # of the network, and two of the choice of bits
    best = max(layers, key=lambda layer: layer.sqnr_alone_db or 0)
    section = html[html.index(f'id="layer-{layers.index(best) + 1}"') :]
    assert "<figure>" not in section[: section.index("</details>")]
    assert f"the {most} worst layers of {len(layers)}" in html


def test_the_same_report_twice():
    assert render(invented()) == render(invented())


def test_the_data_beside_the_page():
    data = json.loads(json.dumps(invented().as_json(), allow_nan=False))
    assert data["analysis"]["layers"][1]["name"] == HOSTILE and "image" not in data["analysis"]["worst_inputs"][0]
    assert [pair["integer"]["median_ms"] for pair in data["latency"]] == [0.67, 3.5] and data["target"]["mapped"] == 4
    assert data["network"][4]["reads"] == [1, 3]


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("try --granularity=per_channel, or not", "try <code>--granularity=per_channel</code>, or not"),
        ("(see `--passes='-a'`).", "(see <code>--passes=&#39;-a&#39;</code>)."),
        ("use --passes='-a,b{c=d}'.", "use <code>--passes=&#39;-a,b{c=d}&#39;</code>."),
        ("a < b", "a &lt; b"),
    ],
)
def test_flags_are_shown_as_code(text, html):
    assert with_code(text) == html


def test_long_names_may_be_broken():
    assert breakable("a/b<i>_c.d") == "a/<wbr>b&lt;i&gt;_<wbr>c.<wbr>d"
    assert breakable("0.96 of a") == "0.96 of a"


def test_the_browser_is_ended(tmp_path):
    with browsing(tmp_path):
        own = tmp_path / "SingletonLock"
        process = int(os.readlink(own).rsplit("-", 1)[1])
        os.kill(process, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
