"""Errors are one line that says what was wrong, the value, and what to do."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmalign import errors
from mmalign.errors import MMAlignError, nearest

FAMILY = [getattr(errors, name) for name in errors.__all__ if name.endswith("Error")]


@pytest.mark.parametrize("kind", FAMILY)
def test_problem_value_and_remedy(kind: type[MMAlignError]) -> None:
    error = kind("k must be positive", got=0, fix="pass k >= 1")
    assert str(error) == "k must be positive (got 0): pass k >= 1"
    assert isinstance(error, MMAlignError)
    assert str(kind("it broke")) == "it broke"
    assert str(kind("it broke", got=None)) == "it broke (got None)"


def test_the_family_is_caught_as_python_expects() -> None:
    for kind in (errors.ConfigError, errors.DataError, errors.ArtefactError):
        assert issubclass(kind, ValueError)
    for kind in (errors.EncoderError, errors.TrainingError):
        assert issubclass(kind, RuntimeError)
    assert issubclass(errors.MissingDependencyError, ImportError)


@given(problem=st.text(), got=st.text(), fix=st.text())
def test_always_one_line(problem: str, got: str, fix: str) -> None:
    text = str(MMAlignError(problem, got=got, fix=fix))
    assert len(text.splitlines()) <= 1
    assert len(text) <= len(problem) + len(fix) + 140


def test_long_values_are_shortened() -> None:
    text = str(MMAlignError("bad", got=list(range(1000))))
    assert text.endswith("...)")
    assert len(text) < 140


def test_crosses_process_borders() -> None:
    error = errors.DataError("a", got="b", fix="c")
    other = pickle.loads(pickle.dumps(error))
    assert (type(other), str(other)) == (type(error), str(error))


def test_nearest() -> None:
    assert nearest("tex", ["text", "image"]) == "did you mean 'text'? Valid: image, text"
    assert nearest("item_id", ["ITEM_ID", "x"]) == "did you mean 'ITEM_ID'? Valid: ITEM_ID, x"
    assert nearest("zzz", ["text", "image"]) == "Valid: image, text"
    assert nearest("x", []) == "Valid: "
