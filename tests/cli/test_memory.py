"""The collector is put off for imports, and only for them."""

from __future__ import annotations

import gc

import pytest

from mmalign.cli.memory import without_collecting


def test_the_collector_is_off_inside_and_on_again_after_a_failure() -> None:
    def fail() -> None:
        with without_collecting():
            assert not gc.isenabled()
            raise ImportError

    assert gc.isenabled()
    with pytest.raises(ImportError):
        fail()
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with without_collecting():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
