"""Standard scores by plain loops, and an order that scaling cannot change."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmalign.models.calibration import Calibration, standardise

WARM = np.array([True, True, True, False, False])
numbers = st.floats(-100, 100, width=32)


def test_worked_by_hand() -> None:
    """Warm 1, 2, 3: mean 2, deviation sqrt(2/3); warm 0, 0, 3: mean 1, deviation sqrt(2)."""
    parts = {
        "a": np.array([[1, 2, 3, 4, 0]], np.float32),
        "b": np.array([[0, 0, 3, 2, 1]], np.float32),
    }
    calibration = Calibration({"a": 0.5}, {"a": 0.25, "b": 2.0}, cold_scale=2.0, cold_shift=0.25)
    a, b = (2 / 3) ** 0.5, 2**0.5
    expected = [
        0.5 * -1 / a + -1 / b,
        0.5 * 0 / a + -1 / b,
        0.5 * 1 / a + 2 / b,
        0.5 * 2 / a + 4 * 1 / b + 0.25,
        0.5 * -2 / a + 4 * 0 / b + 0.25,
    ]
    fused = calibration.apply(parts, WARM)
    assert fused.dtype == np.float32
    np.testing.assert_allclose(fused[0], expected, rtol=1e-5)


def test_the_history_moves_scale_and_shift_as_worked_by_hand() -> None:
    """Usual history 3; of 0 and 7 items the ratios are 1/4 and 2, the roots 1/2 and √2."""
    calibration = Calibration(
        cold_scale=2.0, cold_shift=0.5, usual_history=3.0, scale_power=0.5, shift_slope=-1.0
    )
    raw = np.array([[1, 2, 3, 4, 0]] * 3, np.float32)
    deviation = (2 / 3) ** 0.5
    fused = calibration.apply({"a": raw}, WARM, np.array([0, 3, 7]))
    for row, scale, shift in zip(
        fused, (1, 2, 2 * 2**0.5), (0.5 + np.log(4), 0.5, 0.5 - np.log(2)), strict=True
    ):
        expected = [x / deviation for x in (-1, 0, 1)]
        expected += [scale * x / deviation + shift for x in (2, -2)]
        np.testing.assert_allclose(row, expected, rtol=1e-5)
    np.testing.assert_array_equal(calibration.apply({"a": raw}, WARM)[0], fused[1])


def test_says_how_many_deviations_above_the_average_warm_item() -> None:
    scores = np.random.default_rng(0).normal(5, 3, (4, 5)).astype(np.float32)
    for row, standard in zip(scores, standardise(scores, WARM), strict=True):
        known = [float(x) for x in row[WARM]]
        mean, deviation = statistics.fmean(known), statistics.pstdev(known)
        np.testing.assert_allclose(standard, (row - mean) / deviation, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("level", [0.0, 0.1, 3.3333, 1e4 / 3])
def test_equal_warm_scores_are_not_blown_up(level: float) -> None:
    warm = np.arange(334) < 333  # so many that the mean of equal numbers is not quite theirs
    scores = np.full((1, 334), level, np.float32)
    scores[0, 333] += 1
    standard = standardise(scores, warm)
    np.testing.assert_allclose(standard[0], 1 - warm, atol=1e-5 * (1 + level))


@given(
    cold=st.lists(numbers, min_size=5, max_size=5),
    warm=st.lists(numbers, min_size=5, max_size=5),
    scale=st.floats(0.5, 8),
    weight=st.floats(0.1, 3),
    shift=st.floats(-2, 2),
    power=st.floats(-1, 1),
    taken=st.integers(0, 10_000),
)
def test_one_part_keeps_its_order_within_cold_and_within_warm(
    cold: list[float],
    warm: list[float],
    scale: float,
    weight: float,
    shift: float,
    power: float,
    taken: int,
) -> None:
    raw = np.array([[*warm, *cold]], np.float32)
    is_warm = np.arange(10) < 5
    calibration = Calibration({"score": weight}, {"score": weight}, scale, shift, 20.0, power, 0.5)
    fused = calibration.apply({"score": raw}, is_warm, np.array([taken]))
    for chosen in (is_warm, ~is_warm):
        before, after = raw[0, chosen], fused[0, chosen]
        steps = np.diff(after[np.argsort(before, kind="stable")])
        assert (steps >= -1e-4 * (1 + np.abs(after).max())).all()


def test_the_default_changes_no_order_at_all() -> None:
    raw = np.random.default_rng(1).normal(size=(3, 5)).astype(np.float32)
    fused = Calibration().apply({"score": raw}, WARM)
    np.testing.assert_array_equal(np.argsort(fused), np.argsort(raw))


def test_leaves_raw_scores_as_they_are() -> None:
    raw = np.arange(5, dtype=np.float32)[None]
    Calibration(cold_shift=3.0).apply({"score": raw}, WARM)
    np.testing.assert_array_equal(raw, np.arange(5)[None])
