"""The page of a report: templates of Jinja, with everything that comes from the model escaped."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup, escape
from PIL import Image

from converter.analysis.table import Analysis, LayerAnalysis
from converter.recording import Threshold
from converter.report import figures, wording
from converter.report.content import Content, grouped, refusals
from converter.report.network import draw, shortened
from converter.widths import sentences
from passes.contract.base import Progress, silent

TEMPLATES = Path(__file__).parent / "templates"
MOST_ILLUSTRATED = 100  # layers with figures: the worst ones, in a network of more
_MOST_LISTED = 200  # entries of one pass; all are in the JSON
_WORST = 8


@dataclass(frozen=True, kw_only=True)
class LayerView:
    """A layer as the page shows it: `number` from 1 in the file's order, its pictures with their captions."""

    number: int
    layer: LayerAnalysis
    pictures: tuple[tuple[figures.Picture, str], ...]
    ranges: tuple[tuple[str, Threshold], ...]
    is_open: bool

    @property
    def anchor(self) -> str:
        return f"layer-{self.number}"


def render(content: Content, *, progress: Progress = silent) -> str:
    """The whole page as HTML, which needs nothing but itself."""
    script = (TEMPLATES / "report.js").read_text()
    views = _views(content.analysis, progress)
    by_name = {view.layer.name: view for view in views}
    worst = [by_name[layer.name] for layer in content.analysis.worst(_WORST) if layer.sqnr_db is not None]
    return (
        _environment()
        .get_template("report.html")
        .render(
            content=content,
            analysis=content.analysis,
            summary=content.headline,
            measured_on=content.analysis.summary.get("samples"),
            pipeline=content.analysis.summary.get("pipeline"),
            verdict=wording.verdict(content),
            judgement=wording.judgement(content),
            advices=grouped(content.analysis.causes),
            refusals=refusals(content.check.unmapped if content.check else ()),
            views=views,
            anchors={name: view.anchor for name, view in by_name.items()},
            worst=worst,
            effects_known=any(view.layer.logits_sqnr_db is not None for view in worst),
            illustrated=min(len(views), MOST_ILLUSTRATED),
            overview=figures.sqnr_overview(content.analysis.layers, "overview"),
            front=None if content.choice is None else figures.front(content.choice, "front"),
            bars=None if content.choice is None else figures.bits_of_layers(content.choice, "bars"),
            drawing=draw(content.rows),
            glossary=wording.GLOSSARY,
            most_listed=_MOST_LISTED,
            widths={layer.layer: layer for layer in content.widths},
            width_sentences=sentences(content.widths),
            style=Markup((TEMPLATES / "report.css").read_text()),
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["zip"] = zip
    environment.filters.update(
        number=wording.number,
        decibels=wording.decibels,
        percent=wording.percent,
        size=wording.size,
        milliseconds=wording.milliseconds,
        span=wording.span,
        cosine=wording.cosine,
        score=wording.score,
        interval=wording.interval,
        severity=wording.severity,
        sentence=wording.sentence,
        shortened=shortened,
        drawn=drawn,
        thumbnail=thumbnail,
        breakable=breakable,
        with_code=with_code,
    )
    return environment


def _views(analysis: Analysis, progress: Progress) -> list[LayerView]:
    worst = {layer.name for layer in analysis.worst(MOST_ILLUSTRATED)}
    opened = {layer.name for layer in analysis.worst(1)}
    views = []
    for number, layer in enumerate(analysis.layers, 1):
        ranges = analysis.history.activations.get(layer.output, {})
        views.append(
            LayerView(
                number=number,
                layer=layer,
                pictures=_pictures(layer, number) if layer.name in worst else (),
                ranges=tuple(ranges.items()) if len(ranges) > 1 else (),
                is_open=layer.name in opened,
            )
        )
        progress("report", number, len(analysis.layers))
    return views


def _pictures(layer: LayerAnalysis, number: int) -> tuple[tuple[figures.Picture, str], ...]:
    captioned = (
        (
            figures.activation_histogram(layer, f"values-{number}"),
            "Values of the float output and the range that the integers reach",
        ),
        (
            figures.weight_ranges(layer, f"weights-{number}"),
            "Smallest and largest weight of every output channel: in the file, and before passes scaled them",
        ),
        (
            figures.codebook(layer, f"codebook-{number}"),
            "The codebook: what blocks of weights may be, a line for each entry",
        ),
    )
    return tuple((picture, caption) for picture, caption in captioned if picture is not None)


def drawn(picture: figures.Picture, anchors: Mapping[str, str] | None = None) -> Markup:
    """A picture as an element of the page, with links from its spots. Its SVG is Matplotlib's, without text of the model."""
    assert picture.svg.startswith("<svg ") and picture.svg.endswith("</svg>")
    label = Markup('<svg class="plot" role="img" aria-label="{}" ').format(picture.description)
    links = Markup("").join(
        Markup(
            '<a href="#{}" tabindex="-1"><circle class="spot" cx="{}" cy="{}" r="5"><title>{}</title></circle></a>'
        ).format(anchors[spot.layer], spot.x, spot.y, f"{spot.layer}: {spot.text}")
        for spot in picture.spots
        if anchors and spot.layer in anchors
    )
    return label + Markup(picture.svg.removeprefix("<svg ").removesuffix("</svg>")) + links + Markup("</svg>")


def thumbnail(image: Any) -> str:
    """A uint8 image `[height, width, 3]` as the address of a PNG that is in the address itself."""
    file = io.BytesIO()
    Image.fromarray(np.asarray(image, np.uint8)).save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def breakable(name: str) -> Markup:
    """A name of a layer, escaped, that may be broken into lines after `/`, `_`, `:`, `;`, `,` and the dots of a path."""
    return Markup("<wbr>").join(part for part in _BREAKS.split(name) if part)


_BREAKS = re.compile(r"(?<=[/_:;,])|(?<=\.)(?=[^\W\d])")
_CODE = re.compile(r"(`[^`]+`|--[a-z]\w*(?:[= ]'[^']*'|=[^\s,;)]*[^\s,;).])?)")


def with_code(text: str) -> Markup:
    """A sentence, escaped, with its flags and what stands between backticks as code."""
    parts = _CODE.split(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part.strip("`")) if i % 2 else escape(part) for i, part in enumerate(parts)
    )
