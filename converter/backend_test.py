"""Which library Keras is told to compute with, and what is said where there is none."""

from __future__ import annotations

import importlib.machinery

import pytest

from converter import backend
from ir.errors import OptionError


@pytest.fixture
def choose(monkeypatch, tmp_path):
    """What `choose_backend` sets where some packages are installed."""

    def chosen(installed: str, *, asked: str | None = None, in_file: str | None = None) -> str | None:
        monkeypatch.delitem(backend.sys.modules, "keras", raising=False)
        monkeypatch.setattr(
            backend, "find_spec", lambda n: importlib.machinery.ModuleSpec(n, None) if n in installed.split() else None
        )
        monkeypatch.setenv("KERAS_HOME", str(tmp_path))
        (tmp_path / "keras.json").write_text(f'{{"backend": "{in_file}"}}' if in_file else "damaged")
        monkeypatch.setenv("KERAS_BACKEND", asked or "")
        backend.choose_backend()
        return backend.os.environ["KERAS_BACKEND"]

    return chosen


def test_what_is_installed_is_taken(choose):
    assert choose("jax tensorflow") == "tensorflow"
    assert choose("jax") == "jax" and choose("torch") == "torch"
    assert choose("jax", in_file="tensorflow") == "jax"  # Keras wrote that in another environment


def test_what_the_user_has_said_stays(choose):
    assert choose("jax tensorflow", in_file="jax") == ""
    assert choose("jax tensorflow", asked="jax") == "jax"


@pytest.mark.parametrize(
    ("asked", "found"), [("", "found none"), ("torch", "KERAS_BACKEND=torch, which is not installed")]
)
def test_none_is_one_sentence(choose, asked, found):
    with pytest.raises(OptionError, match=f"Keras: expected TensorFlow or JAX, .* {found}; pip install jax"):
        choose("jax" if asked else "", asked=asked)


def test_tensorflow_is_asked_for_only_where_it_is_the_subject(monkeypatch):
    monkeypatch.setattr(backend, "find_spec", lambda name: None)
    with pytest.raises(OptionError, match=r"TFRecords: expected TensorFlow.*pip install tensorflow, or give arrays"):
        backend.tensorflow_for("TFRecords", "give arrays")
