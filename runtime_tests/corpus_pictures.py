"""What the corpus' networks are made to look at: faces, eyes, hands and people, cut out of photographs.

A network for hands is not at home on a photograph without any: its float outputs there are next to nothing, or jump
with the noise of the input. `corpus_pictures.json` lists squares of the shared photographs, `[file, x, y, half]` in
pixels, that the corpus' own float detectors found, its landmark networks agreed with, and a person confirmed (they
had also found two birds, a dog's paw and a trumpet). Every other square is for calibration, the rest for judging.

Landmark networks see the squares, black where they reach beyond the photograph, as in MediaPipe's graphs. Detectors
see a square view (`hand_views`, `face_views`; that of people finds them by their faces): the largest square of the
photograph, as near as it goes to what is to be found. Views have no border on purpose. Next to a black one, -1 to these
networks, the float detectors are at a loss themselves: about a person in a wide black frame,
`pose_detection_f96eadd.tflite` at times wakes channels in its 18th depthwise layer that are zero elsewhere, and its
answers grow a hundredfold. One such picture to calibrate on, and all ranges are made for it.

`python -m runtime_tests.corpus_pictures SHARED FOLDER` writes them, and the options that `survey` takes:
`survey SHARED/models/float_tflite --options FOLDER/options.json --images SHARED/data/images`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from runtime_tests import corpus_sounds

_HERE = Path(__file__).parent
_VIEWS = {"hand_views": "hands", "face_views": "faces"}
_SIZE = 256


def expected() -> dict[str, dict[str, Any]]:
    """What `corpus.json` says of each file."""
    return json.loads((_HERE / "corpus.json").read_text())


def write(photographs: Path, folder: Path) -> None:
    """Writes `folder/KIND/judged` and `folder/KIND/calibration`, for every kind of picture."""
    squares = json.loads((_HERE / "corpus_pictures.json").read_text())
    for kind, source in {**{kind: kind for kind in squares}, **_VIEWS}.items():
        for i, (name, x, y, half) in enumerate(squares[source]):
            target = folder / kind / ("calibration" if i % 2 else "judged")
            target.mkdir(parents=True, exist_ok=True)
            whole = _read(photographs / name)
            cut = _view(whole, x, y) if kind in _VIEWS else _square(whole, x, y, half)
            cut.save(target / f"{i:02}.png")


def _read(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def _view(whole: Image.Image, x: float, y: float) -> Image.Image:
    """The largest square of a picture, with a place as near to its middle as the borders let it."""
    half = min(whole.size) / 2
    return _square(whole, np.clip(x, half, whole.width - half), np.clip(y, half, whole.height - half), half)


def _square(whole: Image.Image, x: float, y: float, half: float) -> Image.Image:
    """A part of a picture; black where it reaches beyond."""
    box = (x - half, y - half, x + half, y + half)
    return whole.transform((_SIZE, _SIZE), Image.Transform.EXTENT, box, Image.Resampling.BILINEAR)


def options(shared: Path, folder: Path) -> dict[str, dict[str, Any]]:
    """The options file of `survey`, with absolute paths."""
    found = {}
    for name, entry in expected().items():
        kind = entry.pop("pictures", None)
        entry.update({key: str(shared.resolve() / entry[key]) for key in ("data", "calibration_data") if key in entry})
        if entry.pop("sounds", False):
            entry["data"] = str(folder.resolve() / "sounds/judged.npy")
            entry["calibration_data"] = str(folder.resolve() / "sounds/calibration.npy")
        if kind is not None:
            entry["images"] = str(folder.resolve() / kind / "judged")
            entry["calibration_images"] = str(folder.resolve() / kind / "calibration")
        found[name] = entry
    return found


if __name__ == "__main__":
    shared_, folder_ = map(Path, sys.argv[1:3])
    write(shared_ / "data/imagenet_samples/images", folder_)
    corpus_sounds.write(folder_)
    (folder_ / "options.json").write_text(json.dumps(options(shared_, folder_), indent=2))
