"""What the benchmarks measure on: a network, its calibration samples, the samples it is judged on and its metric."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from converter.data import DataSource, InputSpec, from_arrays, open_data
from converter.data.source import choose
from converter.frontends.keras_model import load_keras
from ir.errors import DataError, OptionError

SHIPPED = Path(__file__).resolve().parent.parent / "converter" / "shipped"
_WINDOW = 5  # frames that the autoencoder of `anomaly_detection` sees at once


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A network to convert.

    Attributes:
      preprocess: how its images become its inputs.
      calibration, test: samples to calibrate on, and others to judge on.
      labels: [test samples] classes; or, where `metric` is "AUC", [recordings] whether each is an anomaly: then the
        test samples are the windows of the recordings, as many of each. None where `metric` is "SQNR".
      metric: "top-1", "AUC", or "SQNR" of networks whose outputs are no classes: they have no other score.
      tuning: what can be tuned on, calibration's samples among it; `untouched` are the test samples that are not
        (all of them, if None).
    """

    name: str
    path: Path
    preprocess: str
    calibration: DataSource
    test: DataSource
    labels: np.ndarray | None
    metric: str = "top-1"
    tuning: DataSource
    untouched: np.ndarray | None = None

    def score(self, outputs: np.ndarray, errors: np.ndarray) -> float | None:
        """The metric of the test samples' outputs; `errors` [samples] are mean squared reconstruction errors."""
        if self.labels is None:
            return None
        if self.metric == "top-1":
            return float((outputs.argmax(axis=1) == self.labels).mean())
        return area_under_curve(errors.reshape(len(self.labels), -1).mean(axis=1), self.labels)


def area_under_curve(scores: np.ndarray, positive: np.ndarray) -> float:
    """The probability that a positive sample scores above a negative one (equal scores count half)."""
    above = scores[positive][:, None] - scores[~positive][None, :]
    return float((above > 0).mean() + 0.5 * (above == 0).mean())


def load_subject(name: str, shared: Path, calibration_samples: int, test_samples: int | None) -> Subject:
    """A subject by name, or by the JSON file that describes it.

    Raises OptionError for an unknown name, DataError where its files are missing.
    """
    if name.endswith(".json") and Path(name).is_file():
        return _fewer(_described(Path(name).stem, Path(name))(shared, calibration_samples), test_samples)
    if name not in SUBJECTS:
        raise OptionError(
            expected=f"models of {', '.join(SUBJECTS)}, or the .json of a trained one",
            found=name,
            where="--models",
            fix="choose some of them",
        )
    if name != "digits" and not shared.is_dir():
        raise DataError(
            expected="the folder with networks and data",
            found="none",
            where=str(shared),
            fix="name it with --shared, or measure the network that is shipped with --models=digits",
        )
    subject = SUBJECTS[name](shared, calibration_samples)
    return _fewer(subject, test_samples)


def load_tuned_subject(name: str, shared: Path, calibration_samples: int, test_samples: int | None) -> Subject:
    """The same, judged only on samples that are not in `tuning`."""
    subject = load_subject(name, shared, calibration_samples, None)
    return _fewer(subject if subject.untouched is None else _judged_on(subject, subject.untouched), test_samples)


def load_drawn_subject(
    name: str, shared: Path, calibration_samples: int, test_samples: int | None, seed: int
) -> Subject:
    """The same as `load_subject` with seed 0; with another one calibrated on samples drawn from those to tune on, judged on others."""
    if seed == 0:
        return load_subject(name, shared, calibration_samples, test_samples)
    subject = load_tuned_subject(name, shared, calibration_samples, test_samples)
    return replace(subject, calibration=subject.tuning.subset(choose(len(subject.tuning), calibration_samples, seed)))


def _fewer(subject: Subject, samples: int | None) -> Subject:
    if samples is None or subject.metric == "AUC":
        return subject
    return _judged_on(subject, choose(len(subject.test), samples))


def _judged_on(subject: Subject, chosen: np.ndarray) -> Subject:
    labels = None if subject.labels is None else subject.labels[chosen]
    return replace(subject, test=subject.test.subset(chosen), labels=labels, untouched=None)


def _specs(path: Path) -> list[InputSpec]:
    return [InputSpec(name=t.name, shape=(1, *t.shape[1:]), dtype=t.dtype) for t in load_keras(path).inputs]


def _image_net(name: str, file: str) -> Callable[[Path, int], Subject]:
    """Calibrated on evenly spaced ones of every tenth image, judged on those that are no tenth.

    Every fifth image, from the fifth on, is left out of what can be tuned on.
    """

    def load(shared: Path, samples: int) -> Subject:
        path, data = shared / "models" / file, shared / "data" / "imagenet_samples"
        images = open_data(data / "images", _specs(path), preprocess="tf", labels=data / "labels.csv")
        tenth = np.arange(len(images)) % 10 == 0
        calibration = np.flatnonzero(tenth)
        left_out = np.arange(len(images)) % 5 == 4
        test = images.subset(np.flatnonzero(~tenth))
        assert test.labels is not None
        return Subject(
            name=name,
            path=path,
            preprocess="tf",
            calibration=images.subset(calibration[choose(len(calibration), samples)]),
            test=test,
            labels=test.labels,
            tuning=images.subset(np.flatnonzero(~left_out)),
            untouched=np.flatnonzero(left_out[~tenth]),
        )

    return load


def _tiny(name: str, file: str, preprocess: str) -> Callable[[Path, int], Subject]:
    """A classifier of MLPerf Tiny."""

    def load(shared: Path, samples: int) -> Subject:
        path = shared / "models" / "mlperf_tiny" / file
        with np.load(shared / "data" / "mlperf_tiny" / f"{name}.npz") as arrays:
            calibration, test, labels = (arrays[k] for k in ("calibration", "test", "test_labels"))
        specs = _specs(path)
        chosen = calibration[choose(len(calibration), samples)]
        return Subject(
            name=name,
            path=path,
            preprocess=preprocess,
            calibration=from_arrays(chosen, specs, preprocess=preprocess),
            tuning=from_arrays(calibration, specs, preprocess=preprocess),
            test=from_arrays(test, specs, preprocess=preprocess),
            labels=labels,
        )

    return load


def _anomaly_detection(shared: Path, samples: int) -> Subject:
    path = shared / "models" / "mlperf_tiny" / "ad_autoencoder.keras"
    with np.load(shared / "data" / "mlperf_tiny" / "anomaly_detection.npz") as arrays:
        calibration, test = windows(arrays["calibration"]), windows(arrays["test"])
        labels = arrays["test_is_anomaly"]
    specs = _specs(path)
    return Subject(
        name="anomaly_detection",
        path=path,
        preprocess="none",
        calibration=from_arrays(calibration[choose(len(calibration), samples)], specs),
        test=from_arrays(test, specs),
        labels=labels,
        metric="AUC",
        tuning=from_arrays(calibration, specs),
    )


def windows(recordings: np.ndarray) -> np.ndarray:
    """[recordings, frames, bands] to [recordings * windows, 5 * bands]: every run of 5 frames, one after the other."""
    count = recordings.shape[1] - _WINDOW + 1
    parts = [recordings[:, i : i + count] for i in range(_WINDOW)]
    return np.concatenate(parts, axis=2).reshape(len(recordings) * count, -1)


def _cifar10(shared: Path, samples: int) -> Subject:
    """ResNet-20 on CIFAR-10 that was saved as JPEG; trained on the training images with their labels, judged on the test's."""
    path, data = shared / "models" / "resnet20_cifar10_jpeg.keras", shared / "data" / "cifar10_jpeg"
    (train, train_labels), (test, labels) = (jpeg_archive(data / f"{part}.npz") for part in ("train", "test"))
    specs = _specs(path)
    tuning = from_arrays(train, specs, preprocess="tf", labels=train_labels)
    return Subject(
        name="resnet20_cifar10",
        path=path,
        preprocess="tf",
        calibration=tuning.subset(choose(len(tuning), samples)),
        test=from_arrays(test, specs, preprocess="tf"),
        labels=labels,
        tuning=tuning,
    )


def jpeg_archive(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images `[samples, 32, 32, 3]`, uint8, and labels of an archive with the bytes of all files one after the other."""
    with np.load(path) as arrays:
        content, ends, labels = arrays["jpeg"].tobytes(), arrays["ends"], arrays["labels"]
    starts = [0, *ends[:-1]]
    images = [np.asarray(Image.open(io.BytesIO(content[a:b]))) for a, b in zip(starts, ends, strict=True)]
    return np.stack(images), labels.astype(np.int64)


def _described(name: str, description: Path) -> Callable[[Path, int], Subject]:
    """A network that a script trained and described (`train_digits`, `train_fashion`, `train_families`), beside its data."""

    def load(shared: Path, samples: int) -> Subject:
        folder = description.parent
        try:
            about = json.loads(description.read_text())
            path, mode = folder / about["file"], about["preprocess"]
            files = [folder / about["data"][part] for part in ("calibration", "test")]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                expected="the description of a trained network: file, preprocess, data with calibration and test",
                found=f"{type(error).__name__} {error}",
                where=str(description),
                fix="take the .json that the training script wrote",
            ) from error
        specs = _specs(path)
        tuning, test = (open_data(file, specs, preprocess=mode) for file in files)
        return Subject(
            name=name,
            path=path,
            preprocess=mode,
            calibration=tuning.subset(choose(len(tuning), samples)),
            test=test,
            labels=test.labels,
            metric="SQNR" if test.labels is None else "top-1",
            tuning=tuning,
        )

    return load


SUBJECTS: dict[str, Callable[[Path, int], Subject]] = {
    "mobilenet_v1": _image_net("mobilenet_v1", "mobilenet_v1_075_imagenet.keras"),
    "mobilenet_v2": _image_net("mobilenet_v2", "mobilenet_v2_100_imagenet.keras"),
    "image_classification": _tiny("image_classification", "ic_resnet8.keras", "none"),
    "visual_wake_words": _tiny("visual_wake_words", "vww_mobilenet025.keras", "unit"),
    "keyword_spotting": _tiny("keyword_spotting", "kws_dscnn.keras", "none"),
    "anomaly_detection": _anomaly_detection,
    "resnet20_cifar10": _cifar10,
    "digits": _described("digits", SHIPPED / "digits_mobilenet_v2.json"),
}
