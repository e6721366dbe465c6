from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mmalign.benchmark.comparison import best_baselines, compare
from mmalign.errors import DataError
from mmalign.evaluation.significance import holm, paired_bootstrap


@pytest.fixture
def runs(make_run, rng):
    """Two seeds of three models on two slices, and a slice without users."""
    base = rng.random(60)

    def model(name, gain):
        return [
            make_run(
                name,
                seed,
                {
                    "warm": (base + gain + rng.normal(0, 0.1, 60)).tolist(),
                    "cold": (base[:20] - gain + rng.normal(0, 0.1, 20)).tolist(),
                    "all": [],
                },
            )
            for seed in (0, 1)
        ]

    return {"ours": model("ours", 0.1), "low": model("low", 0.0), "high": model("high", 0.05)}


def test_numbers_are_those_of_the_seed_means(runs):
    found = compare(runs, "ours", "ndcg@20", samples=500, seed=3)
    assert [(c.slice, c.baseline) for c in found] == [
        ("warm", "low"),
        ("warm", "high"),
        ("cold", "low"),
        ("cold", "high"),
    ]
    mean = {
        name: np.mean([run.per_user["warm/ndcg@20"] for run in both], axis=0)
        for name, both in runs.items()
    }
    expected = paired_bootstrap(mean["ours"] - mean["high"], samples=500, seed=3)
    warm_high = found[1]
    assert warm_high.reference_mean == pytest.approx(mean["ours"].mean())
    assert warm_high.baseline_mean == pytest.approx(mean["high"].mean())
    assert warm_high.difference == pytest.approx(expected.mean[0])
    assert (warm_high.low, warm_high.high) == pytest.approx((expected.low[0], expected.high[0]))
    assert warm_high.p == expected.p[0]
    assert warm_high.users == 60


def test_holm_is_over_slices_and_baselines(runs):
    found = compare(runs, "ours", "ndcg@20", samples=500)
    np.testing.assert_allclose([c.p_holm for c in found], holm([c.p for c in found]))
    assert max(c.p_holm / c.p for c in found) == pytest.approx(4)


def test_the_best_baseline_of_each_slice(runs):
    best = best_baselines(compare(runs, "ours", "ndcg@20", samples=100))
    assert {name: one.baseline for name, one in best.items()} == {"warm": "high", "cold": "low"}


def test_of_equal_baselines_the_first_is_the_best(runs):
    first = compare(runs, "ours", "ndcg@20", samples=100)[0]
    same = replace(first, baseline="high")
    assert best_baselines([first, same]) == {"warm": first}
    assert best_baselines([same, first]) == {"warm": same}


def test_nothing_to_compare(runs):
    assert compare(runs, "absent", "ndcg@20", samples=100) == []
    assert compare({"ours": runs["ours"]}, "ours", "ndcg@20", samples=100) == []


@pytest.mark.parametrize("model", ["ours", "low"])
def test_other_users_are_refused(runs, model):
    first, second = runs[model]
    arrays = {**second.per_user, "warm/users": np.arange(1, 61)}
    runs[model] = [first, replace(second, per_user=arrays)]
    with pytest.raises(DataError, match=f"different users.*{model}, seed 1"):
        compare(runs, "ours", "ndcg@20", samples=100)


def test_a_slice_that_a_model_does_not_serve_is_not_compared(runs, make_run):
    values = {"warm": [0.5] * 60, "cold": [np.nan] * 20, "all": []}
    runs["low"] = [make_run("low", seed, values) for seed in (0, 1)]
    found = compare(runs, "ours", "ndcg@20", samples=100)
    pairs = [(c.slice, c.baseline) for c in found]
    assert pairs == [("warm", "low"), ("warm", "high"), ("cold", "high")]
    assert np.isfinite([c.p_holm for c in found]).all()
    runs["ours"] = [make_run("ours", seed, values) for seed in (0, 1)]
    assert {c.slice for c in compare(runs, "ours", "ndcg@20", samples=100)} == {"warm"}
