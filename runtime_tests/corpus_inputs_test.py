"""What the corpus is fed with: views that hold what is to be found, and a voice that is loud and quiet."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime_tests import corpus_sounds
from runtime_tests.corpus_pictures import expected, options, write


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """White pictures under the names that the corpus' squares are cut out of."""
    folder = tmp_path_factory.mktemp("photographs")
    squares = json.loads((Path(__file__).parent / "corpus_pictures.json").read_text())
    for name in {s[0] for kind in squares.values() for s in kind}:
        Image.new("RGB", (300, 360), "white").save(folder / name)
    return folder


def test_views_reach_nowhere_beyond_the_photograph(photographs: Path, tmp_path: Path) -> None:
    write(photographs, tmp_path)
    for kind in ("hand_views", "face_views"):
        views = [np.asarray(Image.open(p)) for p in sorted((tmp_path / kind).rglob("*.png"))]
        assert len(views) > 10 and all(v.min() == 255 for v in views), kind
    squares = [np.asarray(Image.open(p)) for p in sorted((tmp_path / "people").rglob("*.png"))]
    assert any(v.min() == 0 for v in squares), "squares about whole people do, and are black there"


def test_every_kind_that_the_corpus_names_is_written(photographs: Path, tmp_path: Path) -> None:
    write(photographs, tmp_path)
    for name, entry in options(tmp_path, tmp_path).items():
        for key in ("images", "calibration_images"):
            assert key not in entry or any(Path(entry[key]).iterdir()), (name, key)
    assert set(options(tmp_path, tmp_path)) == set(expected())


def test_a_voice_has_quiet_and_loud_frames(tmp_path: Path) -> None:
    corpus_sounds.write(tmp_path)
    judged, calibration = (np.load(tmp_path / f"sounds/{kind}.npy") for kind in ("judged", "calibration"))
    assert (
        judged.shape == calibration.shape and judged.shape[1:] == (1, 512) and not np.array_equal(judged, calibration)
    )
    np.testing.assert_array_equal(judged[0, 0, 128:], judged[1, 0, :-128])
    loudness = np.abs(judged).max(axis=(1, 2))
    assert np.quantile(loudness, 0.1) < 0.02 and np.quantile(loudness, 0.9) > 0.2 and loudness.max() <= 1
