"""What the corpus' networks are made to look at: faces, eyes, hands and people, cut out of photographs.

A network for hands is not at home on a photograph without any: its float outputs there are next to nothing, or jump
with the noise of the input. `corpus_pictures.json` lists squares of the shared photographs, `[file, x, y, half]` in
pixels, that the corpus' own float detectors found and its landmark networks agreed with. Every other square is for
calibration, the rest for judging. From the wider views `palms` and `portraits`, detectors find hands and faces.

`python -m runtime_tests.corpus_pictures SHARED FOLDER` writes them, and the options that `survey` takes:
`survey SHARED/models/float_tflite --options FOLDER/options.json --images SHARED/data/images`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from PIL import Image

_HERE = Path(__file__).parent
_WIDER = {"palms": ("hands", 4.0), "portraits": ("faces", 3.0)}
_SIZE = 256


def expected() -> dict[str, dict[str, Any]]:
    """What `corpus.json` says of each file."""
    return json.loads((_HERE / "corpus.json").read_text())


def write(photographs: Path, folder: Path) -> None:
    """Writes `folder/KIND/judged` and `folder/KIND/calibration`, for every kind of picture."""
    squares = json.loads((_HERE / "corpus_pictures.json").read_text())
    kinds = {kind: (kind, 1.0) for kind in squares} | _WIDER
    for kind, (source, factor) in kinds.items():
        for i, (name, x, y, half) in enumerate(squares[source]):
            target = folder / kind / ("calibration" if i % 2 else "judged")
            target.mkdir(parents=True, exist_ok=True)
            _square(photographs / name, x, y, half * factor).save(target / f"{i:02}.png")


def _square(path: Path, x: float, y: float, half: float) -> Image.Image:
    """A part of a picture; black where it reaches beyond."""
    box = (x - half, y - half, x + half, y + half)
    with Image.open(path) as image:
        whole = image.convert("RGB")
        return whole.transform((_SIZE, _SIZE), Image.Transform.EXTENT, box, Image.Resampling.BILINEAR)


def options(shared: Path, folder: Path) -> dict[str, dict[str, Any]]:
    """The options file of `survey`, with absolute paths."""
    found = {}
    for name, entry in expected().items():
        kind = entry.pop("pictures", None)
        entry.update({key: str(shared.resolve() / entry[key]) for key in ("data", "calibration_data") if key in entry})
        if kind is not None:
            entry["images"] = str(folder.resolve() / kind / "judged")
            entry["calibration_images"] = str(folder.resolve() / kind / "calibration")
        found[name] = entry
    return found


if __name__ == "__main__":
    shared_, folder_ = map(Path, sys.argv[1:3])
    write(shared_ / "data/imagenet_samples/images", folder_)
    (folder_ / "options.json").write_text(json.dumps(options(shared_, folder_), indent=2))
