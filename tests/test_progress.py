"""The bar for what takes long: drawn where wanted, silent elsewhere."""

from __future__ import annotations

import pytest

from mmalign.progress import advancing, shows_bars


def test_a_bar_counts_to_its_total(capsys: pytest.CaptureFixture[str]) -> None:
    with advancing("ranking", 3, shown=True) as advance:
        for _ in range(3):
            advance(1)
    drawn = capsys.readouterr()
    assert "ranking" in drawn.err
    assert "3/3" in drawn.err
    assert drawn.out == ""


@pytest.mark.parametrize(("total", "shown"), [(3, False), (0, True)])
def test_nothing_is_drawn_without_need(
    capsys: pytest.CaptureFixture[str], total: int, shown: bool
) -> None:
    with advancing("ranking", total, shown) as advance:
        advance(1)
    assert capsys.readouterr().err == ""


def test_a_bar_needs_a_terminal() -> None:
    assert not shows_bars()  # pytest catches standard error
