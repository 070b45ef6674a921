"""Arrays from .npy and .npz: which array feeds which input, shapes, labels, and files that are damaged."""

from __future__ import annotations

import contextlib
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from converter.data import InputSpec, from_arrays, open_data
from converter.data import arrays as arrays_module
from converter.data.arrays import Archive, open_npy
from ir.errors import ConversionError, DataError

ONE = [InputSpec(name="x", shape=(1, 2, 2, 1))]
TWO = [InputSpec(name="a", shape=(1, 3)), InputSpec(name="b", shape=(1, 2))]
VALUES = np.arange(20, dtype=np.float32).reshape(5, 2, 2, 1)
LABELS = np.asarray([3, 1, 4, 1, 5])


def _all(path: str | Path, inputs: list[InputSpec], **options: object) -> list[np.ndarray]:
    batches = list(open_data(path, inputs, **options).batches(2))  # type: ignore[arg-type]
    return [np.concatenate(arrays) for arrays in zip(*batches, strict=True)]


def test_npy_is_mapped_and_labelled(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", VALUES)
    np.save(tmp_path / "y.npy", LABELS)
    assert isinstance(open_npy(tmp_path / "x.npy"), np.memmap)
    source = open_data(tmp_path / "x.npy", ONE, samples=2, labels=tmp_path / "y.npy")
    assert source.names() == ["0", "2"]
    assert source.labels is not None
    assert source.labels.tolist() == [3, 4]
    assert source.description == f"2 of 5 samples of {tmp_path / 'x.npy'}, preprocess 'none'"
    assert np.array_equal(next(source.batches(9))[0], VALUES[[0, 2]])


def test_files_are_numbers(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", VALUES)
    assert np.array_equal(_all(tmp_path / "x.npy", ONE, files=[4, "1"])[0], VALUES[[4, 1]])
    with pytest.raises(DataError, match="numbers of samples from 0 to 4, found 5"):
        open_data(tmp_path / "x.npy", ONE, files=[5])
    with pytest.raises(DataError, match=r"found cat\.jpg"):
        open_data(tmp_path / "x.npy", ONE, files=["cat.jpg"])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("large", [False, True])
def test_npz_keys(tmp_path: Path, save: object, large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if large:
        monkeypatch.setattr(arrays_module, "_IN_MEMORY_BYTES", 0)
    path, a, b = tmp_path / "d.npz", np.ones((4, 3)), np.asfortranarray(np.arange(8.0).reshape(4, 2))
    save(path, b=b, a=a, labels=LABELS[:4])  # type: ignore[operator]
    first, second = _all(path, TWO)
    assert np.array_equal(first, a)
    assert np.array_equal(second, b)
    labels = open_data(path, TWO).labels
    assert labels is not None
    assert labels.tolist() == [3, 1, 4, 1]
    save(path, a, b)  # type: ignore[operator]
    assert np.array_equal(_all(path, TWO)[1], b)
    save(path, labels=LABELS, whatever=VALUES)  # type: ignore[operator]
    assert np.array_equal(_all(path, ONE)[0], VALUES)


def test_npz_array_by_name(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    np.savez(path, calibration=VALUES[:2], test=VALUES, test_labels=LABELS)
    assert np.array_equal(_all(f"{path}:calibration", ONE)[0], VALUES[:2])
    assert open_data(f"{path}:calibration", ONE).labels is None
    labels = open_data(f"{path}:test", ONE).labels
    assert labels is not None
    assert labels.tolist() == LABELS.tolist()
    np.savez(path.with_name("e.npz"), calibration=VALUES[:2], test=VALUES, labels=LABELS)
    assert open_data(f"{path.with_name('e.npz')}:calibration", ONE).labels is None
    assert open_data(f"{path.with_name('e.npz')}:test", ONE).labels is not None
    np.save(tmp_path / "x.npy", VALUES)
    other = open_data(tmp_path / "x.npy", ONE, labels=f"{path}:test_labels").labels
    assert other is not None
    assert other.tolist() == LABELS.tolist()
    with pytest.raises(
        DataError,
        match=r"expected arrays named 'x', found 'calibration' \[2, 2, 2, 1\], 'test' \[5, 2, 2, 1\], "
        r"'test_labels' \[5\]; .* choose one array by 'd\.npz:calibration'",
    ):
        open_data(path, ONE)
    with pytest.raises(DataError, match="expected an array 'train', found 'calibration', 'test', 'test_labels'"):
        open_data(f"{path}:train", ONE)


def test_a_missing_last_axis_of_one_is_added() -> None:
    (batch,) = from_arrays(VALUES[..., 0], ONE).batches(9)
    assert np.array_equal(batch[0], VALUES)


def test_preprocessing_of_arrays() -> None:
    pixels = np.full((1, 2, 2, 1), 255, np.uint8)
    assert (next(from_arrays(pixels, ONE).batches(1))[0] == 255).all()
    assert (next(from_arrays(pixels, ONE, preprocess="tf").batches(1))[0] == 1).all()
    assert (next(from_arrays(pixels.astype(np.float64), ONE, preprocess="unit").batches(1))[0] == 1).all()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (VALUES[0], r"input 'x': expected shape \[samples, 2, 2, 1\], found \[2, 2, 1\]; add a first axis"),
        (np.zeros((5, 1, 2, 2)), r"found \[5, 1, 2, 2\]; move the channels to the last axis"),
        (np.zeros((5, 2, 2, 3)), r"expected shape \[samples, 2, 2, 1\], found \[5, 2, 2, 3\]; reshape"),
        (np.zeros(()), r"found \[\]"),
        (np.zeros((0, 2, 2, 1)), "at least one, in every array, found 0"),
        (np.zeros((5, 2, 2, 1), complex), "expected real numbers, found type complex128"),
        (np.full((5, 2, 2, 1), "a"), "expected real numbers, found type <U1"),
    ],
)
def test_arrays_that_do_not_fit(array: np.ndarray, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        from_arrays(array, ONE)
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(DataError, match=message.removeprefix("input 'x': ")):
        open_data(tmp_path / "x.npy", ONE)


def test_numbers_of_arrays_and_samples() -> None:
    with pytest.raises(DataError, match=r"expected 2 arrays, for 'a' \[1, 3\] float32, .*, found 1"):
        from_arrays(np.zeros((4, 3)), TWO)
    with pytest.raises(DataError, match="same number of samples, at least one, in every array, found 4, 5"):
        from_arrays([np.zeros((4, 3)), np.zeros((5, 2))], TWO)
    with pytest.raises(DataError, match="expected an array for input 'b', found 'a', 'c'"):
        from_arrays({"a": np.zeros((4, 3)), "c": np.zeros((5, 2))}, TWO)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS[:4], r"expected one class number per sample, an array of shape \[5\], found shape \[4\]"),
        (np.eye(5), r"found shape \[5, 5\]; .*argmax"),
        (LABELS + 0.5, "integer class numbers, found float64 values"),
        (np.full(5, np.nan), "integer class numbers"),
        (np.full(5, "cat"), "integer class numbers, found <U3 values"),
        (LABELS - 2, "class numbers from 0, below 2147483648, found -1"),
    ],
)
def test_labels_that_do_not_fit(labels: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        from_arrays(VALUES, ONE, labels)


def test_labels_in_other_shapes() -> None:
    for labels in (LABELS[:, None], LABELS.astype(np.float32), LABELS.tolist()):
        found = from_arrays(VALUES, ONE, labels).labels
        assert found is not None
        assert found.tolist() == LABELS.tolist()


def test_a_csv_table_goes_with_images_only(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", VALUES)
    (tmp_path / "labels.csv").write_text("file,label\n0,1\n")
    with pytest.raises(DataError, match=r"labels in \.npy or \.npz for this kind of data, found 'labels\.csv'"):
        open_data(tmp_path / "x.npy", ONE, labels=tmp_path / "labels.csv")


def test_paths(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.npy: expected .*, found nothing; check the path"):
        open_data(tmp_path / "nowhere.npy", ONE)
    (tmp_path / "x.mat").write_bytes(b"x")
    with pytest.raises(DataError, match=r"found 'x\.mat'"):
        open_data(tmp_path / "x.mat", ONE)


class _Payload:
    def __reduce__(self) -> tuple[object, ...]:
        return print, ("unpickled",)


def test_pickles_are_never_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    objects = np.asarray([_Payload()], object)
    np.save(tmp_path / "x.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "x.npz", x=objects)
    for name in ("x.npy", "x.npz"):
        with pytest.raises(DataError, match="expected real numbers, found type object"):
            open_data(tmp_path / name, ONE)
    assert "unpickled" not in capsys.readouterr().out


def test_a_header_that_promises_too_much_costs_no_memory(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (2**40, 2, 2, 1)})
    (tmp_path / "x.npy").write_bytes(header.getvalue() + b"abcd")
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue() + b"abcd")
    for name in ("x.npy", "x.npz"):
        with pytest.raises(DataError, match=r"expected 17592186044416 bytes of values .*, found 4"):
            open_data(tmp_path / name, ONE)


def _bytes_of(compressed: bool) -> bytes:
    stream = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(stream, x=VALUES, labels=LABELS)
    return stream.getvalue()


def _npy_bytes() -> bytes:
    stream = io.BytesIO()
    np.save(stream, VALUES)
    return stream.getvalue()


DAMAGED = {"stored.npz": _bytes_of(False), "packed.npz": _bytes_of(True), "plain.npy": _npy_bytes()}


@given(st.sampled_from(sorted(DAMAGED)), st.integers(0, 10**6), st.integers(0, 255), st.booleans())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_files_give_errors_of_ours(tmp_path: Path, kind: str, at: int, value: int, cut: bool) -> None:
    data = bytearray(DAMAGED[kind])
    at %= len(data)
    if cut:
        del data[at:]
    else:
        data[at] = value
    path = tmp_path / kind
    path.write_bytes(data)
    with contextlib.suppress(ConversionError):
        list(open_data(path, ONE).batches(2))


def test_truncated_npz_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(DAMAGED["packed.npz"][:-30])
    with pytest.raises(DataError, match=r"x\.npz: expected a NumPy file .*, found File is not a zip file"):
        Archive(tmp_path / "x.npz")
    with zipfile.ZipFile(tmp_path / "y.npz", "w") as archive:
        archive.writestr("readme.txt", "no arrays")
    with pytest.raises(DataError, match="expected at least one array, found none"):
        Archive(tmp_path / "y.npz")


def test_archives_that_claim_far_more_than_they_hold(tmp_path: Path) -> None:
    """What does not fit is refused by its header, what fits and is out of proportion by its size."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (2**20, 16, 16, 3)})
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive, archive.open("x.npy", "w") as stream:
        stream.write(header.getvalue())
        for _ in range(48):
            stream.write(bytes(2**24))
    assert path.stat().st_size < 2**16
    for shape in ((1, 16, 16, 3), (1, 8)):
        with pytest.raises(DataError, match="claim to unpack to 8053"):
            open_data(path, [InputSpec(name="x", shape=shape)])


def test_an_array_that_does_not_fit_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros((4, 5), np.float32))
    monkeypatch.setattr(Archive, "load", lambda *_: pytest.fail("unpacked"))
    with pytest.raises(DataError, match="expected shape"):
        open_data(tmp_path / "x.npz", [InputSpec(name="x", shape=(1, 3))])


def test_stored_arrays_are_checked_against_their_checksum(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, x=np.arange(12, dtype=np.float32).reshape(4, 3))
    content = bytearray(path.read_bytes())
    content[content.index(np.float32(5).tobytes()) + 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="CRC"):
        open_data(path, [InputSpec(name="x", shape=(1, 3))])


@pytest.mark.parametrize("shape", [(0, 2**70), (0,) * 70])
def test_headers_with_odd_shapes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with (tmp_path / "x.npy").open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
    with pytest.raises(DataError, match="axes, the longest"):
        open_npy(tmp_path / "x.npy")
