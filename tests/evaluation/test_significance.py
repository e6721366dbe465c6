from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from mmalign.errors import ConfigError, DataError
from mmalign.evaluation import significance
from mmalign.evaluation.significance import holm, paired_bootstrap, resampled_t


def test_interval_agrees_with_scipy(rng):
    differences = rng.normal(0.02, 0.1, 300)
    ours = paired_bootstrap(differences, samples=20_000, seed=1)
    theirs = scipy.stats.bootstrap(
        (differences,), np.mean, n_resamples=20_000, method="percentile", rng=2
    ).confidence_interval
    assert ours.mean[0] == pytest.approx(differences.mean())
    assert ours.low[0] == pytest.approx(theirs.low, abs=3e-4)
    assert ours.high[0] == pytest.approx(theirs.high, abs=3e-4)


@pytest.mark.parametrize("shift", [0.0, 0.008, 0.015, -0.012])
def test_p_agrees_with_the_t_test_where_that_holds(rng, shift):
    differences = rng.normal(0, 0.1, 400)
    differences += shift - differences.mean()
    ours = paired_bootstrap(differences, samples=20_000).p[0]
    assert ours == pytest.approx(scipy.stats.ttest_1samp(differences, 0).pvalue, abs=0.015)


def test_false_alarms_come_as_often_as_promised(rng):
    """Under no difference p < .05 in about 5% of studies."""
    alarms = [
        paired_bootstrap(rng.normal(size=100), samples=999, seed=study).p[0] < 0.05
        for study in range(400)
    ]
    assert 0.02 <= np.mean(alarms) <= 0.09


def test_by_hand():
    """All users gain: no resample is at or below zero, so p is 2 (0 + 1) / (n + 1)."""
    found = paired_bootstrap([[0.5, -1.0, 0.0]] * 4, samples=99)
    np.testing.assert_allclose(found.mean, [0.5, -1.0, 0.0])
    np.testing.assert_allclose(found.low, found.mean)
    np.testing.assert_allclose(found.high, found.mean)
    np.testing.assert_allclose(found.p, [0.02, 0.02, 1.0])


def test_two_users_by_counting():
    """Means of (1, -1) are -1, 0, 1 with chances 1/4, 1/2, 1/4: both tails hold three quarters."""
    found = paired_bootstrap([1.0, -1.0], samples=4000)
    assert found.p[0] == 1.0
    assert (found.low[0], found.high[0]) == (-1.0, 1.0)


def test_columns_are_as_if_alone(rng):
    differences = rng.normal(0.01, 0.1, (50, 3))
    together = paired_bootstrap(differences, samples=500, seed=4)
    for i in range(3):
        alone = paired_bootstrap(differences[:, i], samples=500, seed=4)
        for name in ("mean", "low", "high", "p"):
            np.testing.assert_allclose(getattr(together, name)[i], getattr(alone, name)[0])


def test_blocks_change_nothing(rng, monkeypatch):
    differences = rng.normal(0.01, 0.1, 70)
    whole = paired_bootstrap(differences, samples=333)
    monkeypatch.setattr(significance, "_ENTRIES", 700)
    parts = paired_bootstrap(differences, samples=333)
    np.testing.assert_allclose(whole.low, parts.low)
    np.testing.assert_allclose(whole.p, parts.p)


def test_the_seed_decides(rng):
    differences = rng.normal(0.01, 0.1, 70)
    assert paired_bootstrap(differences, seed=1).low == paired_bootstrap(differences, seed=1).low
    assert paired_bootstrap(differences, seed=1).low != paired_bootstrap(differences, seed=2).low


def test_a_wider_level_is_wider(rng):
    differences = rng.normal(0.01, 0.1, 70)
    narrow = paired_bootstrap(differences, level=0.8)
    wide = paired_bootstrap(differences, level=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize("wrong", [[], [np.nan, 1], [[[1.0]]]])
def test_impossible_differences(wrong):
    with pytest.raises(DataError, match="one row per user"):
        paired_bootstrap(wrong)


@pytest.mark.parametrize("options", [{"samples": 0}, {"level": 1.0}, {"level": 0.0}])
def test_impossible_options(options):
    with pytest.raises(ConfigError):
        paired_bootstrap([1.0], **options)


def test_holm_by_hand():
    """.005 x 4 = .02; .01 x 3 = .03; .03 x 2 = .06; .04 x 1 = .04, no less than .06 before it."""
    np.testing.assert_allclose(holm([0.04, 0.01, 0.03, 0.005]), [0.06, 0.03, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.6, 0.9]), [1.0, 1.0])
    assert holm([]).shape == (0,)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_rejects_what_its_steps_reject(values):
    """The definition: going up, reject while p <= level / (tests left); then stop."""
    corrected = holm(values)
    level, rejected = 0.05, np.zeros(len(values), bool)
    for step, i in enumerate(np.argsort(values, kind="stable")):
        if values[i] * (len(values) - step) > level:
            break
        rejected[i] = True
    np.testing.assert_array_equal(corrected <= level, rejected)
    assert (corrected >= np.array(values)).all()
    assert (corrected <= 1).all()


@pytest.mark.parametrize("wrong", [[1.2], [-0.1], [np.nan], [[0.5]]])
def test_impossible_p(wrong):
    with pytest.raises(DataError, match="between 0 and 1"):
        holm(wrong)


def test_folds_that_share_nothing_are_a_plain_t_test(rng):
    values = rng.normal(0.3, 1, 9)
    expected = scipy.stats.ttest_1samp(values, 0)
    error, p = resampled_t(values, test_per_train=0.0)
    assert p == pytest.approx(expected.pvalue)
    assert error == pytest.approx(scipy.stats.sem(values))


def test_folds_that_share_their_training_are_worth_less():
    values = [0.01, 0.02, 0.03, 0.04]
    plain, _ = resampled_t(values, test_per_train=0.0)
    widened, p = resampled_t(values, test_per_train=1 / 3)
    assert widened == pytest.approx(plain * np.sqrt(1 + 4 / 3))
    assert p == pytest.approx(2 * scipy.stats.t.sf(0.025 / widened, 3))
    assert resampled_t([0.1, 0.1], 0.5) == (0.0, 0.0)
    with pytest.raises(DataError, match="two folds or more"):
        resampled_t([0.1], 0.5)
