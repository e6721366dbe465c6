from __future__ import annotations

import json
import math
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from mmalign.data.catalog import Catalog, DataConfig
from mmalign.errors import ConfigError, DataError
from mmalign.evaluation import metrics, protocol
from mmalign.evaluation.protocol import build_slice, evaluate, rank_slice
from mmalign.interfaces import SLICES
from mmalign.models.popularity import RandomConfig, RandomModel

# Item scores for the small log of conftest: 8, 7 and 4 are never candidates on test.
ITEM_SCORES = np.array([9.0, 2.0, 8.0, 1.0, 99.0, 3.0, 4.0, 99.0, 99.0])


def chance(seed: int = 0) -> RandomModel:
    return RandomModel(RandomConfig(seed))


def test_hand_worked_on_test(log, fixed_scores):
    result = evaluate(fixed_scores(ITEM_SCORES), log, "test", ks=(1, 2))
    second = 1 / math.log2(3)

    # warm: user 0 may get only item 3, its truth; user 1 gets 1, its truth, then 3.
    warm = result.metrics["warm"]
    assert warm["recall@1"] == warm["ndcg@1"] == 1.0
    # cold: everybody gets 6 then 5; user 1 wants 6, users 0 and 3 want 5.
    cold = result.metrics["cold"]
    assert cold["recall@1"] == pytest.approx(1 / 3)
    assert cold["recall@2"] == 1.0
    assert cold["ndcg@2"] == pytest.approx((1 + 2 * second) / 3)
    assert (cold["coverage@1"], cold["coverage@2"]) == (0.5, 1.0)
    assert (cold["gini@1"], cold["gini@2"]) == (0.5, 0.0)
    assert cold["novelty@1"] == pytest.approx(math.log2(14))  # no train row, of 5 over 9 items
    # all: user 0 gets 6, 5, user 1 gets 6, 5, user 3 (no history) 0, 2.
    both = result.slices["all"]
    ideal = 1 + second
    assert both.users.tolist() == [0, 1, 3]
    assert both.per_user["recall@2"].tolist() == [0.5, 0.5, 0.0]
    assert both.per_user["ndcg@2"] == pytest.approx([second / ideal, 1 / ideal, 0.0])
    assert both.metrics["coverage@2"] == pytest.approx(4 / 6)
    assert both.metrics["gini@2"] == metrics.gini(np.array([0, 0, 1, 1, 2, 2]))
    assert both.metrics["novelty@2"] == pytest.approx(
        # 5 train rows over 9 items: item 0 has 2 of them, item 2 one, 5 and 6 none.
        -(math.log2(3 / 14) + math.log2(2 / 14) + 4 * math.log2(1 / 14)) / 6
    )
    assert both.counts == {"users": 3, "candidates": 6, "truths": 5, "unreachable": 0}


def test_buckets_by_hand(log, fixed_scores):
    buckets = evaluate(fixed_scores(ITEM_SCORES), log, "test", ks=(2,)).slices["all"].buckets
    # Item 0 has 2 of 5 train rows and is the head; above items 1, 2, 3 lie 2 of 5: mid.
    assert list(buckets) == ["head", "mid", "cold"]
    assert (buckets["head"].items, buckets["head"].users) == (1, 0)
    assert math.isnan(buckets["head"].recall)
    assert (buckets["mid"].items, buckets["mid"].users, buckets["mid"].recall) == (3, 2, 0.0)
    assert (buckets["cold"].items, buckets["cold"].users) == (2, 3)
    assert buckets["cold"].recall == pytest.approx(2 / 3)


def test_buckets_are_measured_at_the_largest_k(log, fixed_scores):
    one, both = (
        evaluate(fixed_scores(ITEM_SCORES), log, "test", ks=ks).slices["all"].buckets["cold"]
        for ks in ((2,), (1, 2))
    )
    assert both == one


def test_the_cold_bucket_of_the_cold_slice_is_the_slice(make_log):
    cold = evaluate(chance(), make_log(), ks=(20,)).slices["cold"]
    assert list(cold.buckets) == ["cold"]
    assert cold.buckets["cold"].recall == pytest.approx(cold.metrics["recall@20"])


@pytest.mark.parametrize("split", ["valid", "test"])
@pytest.mark.parametrize("name", SLICES)
def test_random_recall_is_k_over_candidates(make_log, split, name):
    log, k = make_log(num_users=800), 10
    part = build_slice(log, split, name)
    result = evaluate(chance(1), log, split, ks=(k,)).slices[name]
    values = result.per_user[f"recall@{k}"]
    noise = values.std() / np.sqrt(len(values))

    allowed = len(part.candidates) - part.exclude.getnnz(axis=1)
    assert abs(values.mean() - (k / allowed).mean()) < 3 * noise
    assert noise < 0.1 * values.mean()  # narrow enough to see a slice that is 30% off
    assert values.mean() == pytest.approx(k / len(part.candidates), rel=0.3)


class Oracle:
    """Scores the truth of one slice first; user rows are told apart by their history."""

    def __init__(self, part):
        self.part = part

    def score(self, history, items):
        known = self.part.history.toarray()
        rows = [int(np.flatnonzero((known == row).all(axis=1))[0]) for row in history.toarray()]
        return self.part.truth[rows].toarray().astype(np.float32)


@pytest.mark.parametrize("name", SLICES)
def test_a_perfect_scorer_gets_one(make_log, name):
    log = make_log()
    oracle = Oracle(build_slice(log, "test", name))
    measured = evaluate(oracle, log, slices=(name,), ks=(20,)).metrics[name]
    assert measured["recall@20"] == measured["ndcg@20"] == 1.0


@pytest.fixture
def ranx_metrics(monkeypatch):
    """ranx as plain Python: compiling it takes minutes, running it on small data no time."""
    numba = pytest.importorskip("numba")
    monkeypatch.setattr(numba.config, "DISABLE_JIT", True)
    pytest.importorskip("ranx")
    from ranx.metrics import ndcg, recall  # ndcg is the linear form, with the ideal cut at k

    return {"ndcg": ndcg, "recall": recall}


@pytest.mark.parametrize("name", SLICES)
def test_agrees_with_ranx(make_log, ranx_metrics, name):
    log, scorer = make_log(), chance(5)
    part = build_slice(log, "test", name)
    scores = scorer.score(part.history, part.candidates)
    runs, truths = [], []
    for row, truth, gone in zip(scores, part.truth.toarray(), part.exclude.toarray(), strict=True):
        ranked = [item for item in np.argsort(-row) if not gone[item]]
        runs.append(np.stack([ranked, row[ranked]], axis=1))
        truths.append(np.stack([np.flatnonzero(truth), np.ones(truth.sum())], axis=1))
    result = evaluate(scorer, log, ks=(3, 10, 40)).slices[name]
    for metric, reference in ranx_metrics.items():
        for k in (3, 10, 40):
            expected = reference(truths, runs, k)
            assert result.per_user[f"{metric}@{k}"] == pytest.approx(expected, abs=1e-12)
            assert result.metrics[f"{metric}@{k}"] > 0


def test_neither_blocks_nor_cores_change_the_result(make_log, monkeypatch):
    log = make_log()
    reference = evaluate(chance(), log)
    for block_size in (1, 7, 10_000):
        assert evaluate(chance(), log, block_size=block_size).to_dict() == reference.to_dict()
    monkeypatch.setattr(protocol, "_MEMORY", 100_000)  # blocks of a few users only
    again = evaluate(chance(), log)
    for name, result in reference.slices.items():
        for metric, values in result.per_user.items():
            assert np.array_equal(values, again.slices[name].per_user[metric])


def test_blocks_shrink_when_candidates_are_many(make_log, monkeypatch):
    class Spy(RandomModel):
        largest = 0

        def score(self, history, items):
            Spy.largest = max(Spy.largest, history.shape[0])
            return super().score(history, items)

    part = build_slice(make_log(), "test", "all")
    rank_slice(Spy(RandomConfig()), part, 20, block_size=50)
    assert Spy.largest == 50
    Spy.largest = 0
    monkeypatch.setattr(protocol, "_MEMORY", 100_000)
    rank_slice(Spy(RandomConfig()), part, 20, block_size=50)
    assert 1 <= Spy.largest < 50


def test_k_beyond_the_candidates_finds_everything(log, fixed_scores):
    measured = evaluate(fixed_scores(ITEM_SCORES), log, ks=(50,)).metrics
    assert [measured[name]["recall@50"] for name in SLICES] == [1.0, 1.0, 1.0]


def test_repeated_interactions_are_counted_as_unreachable(log, fixed_scores):
    repeated = type(log)([*log.rows, (0, 0, "test")], log.num_users, log.num_items)
    warm = evaluate(fixed_scores(ITEM_SCORES), repeated, ks=(4,)).slices["warm"]
    assert warm.counts["unreachable"] == 1
    assert warm.per_user["recall@4"].tolist() == [0.5, 1.0]
    kept = evaluate(fixed_scores(ITEM_SCORES), repeated, ks=(4,), exclude_seen=()).slices["warm"]
    assert kept.counts["unreachable"] == 0
    assert kept.metrics["recall@4"] == 1.0


def test_empty_slices_are_reported_not_raised(log, fixed_scores):
    rows = [row for row in log.rows if row[1] not in (5, 6)]
    without_cold = type(log)(rows, log.num_users, log.num_items)
    result = evaluate(fixed_scores(ITEM_SCORES), without_cold)
    cold = result.slices["cold"]
    assert cold.counts == {"users": 0, "candidates": 0, "truths": 0, "unreachable": 0}
    assert all(math.isnan(value) for value in cold.metrics.values())
    assert cold.buckets == {}
    assert set(cold.metrics) == set(result.metrics["warm"])
    assert result.harmonic_mean() == pytest.approx(result.metrics["warm"]["ndcg@20"])

    nothing = evaluate(fixed_scores(ITEM_SCORES), type(log)([], 2, 9))
    assert math.isnan(nothing.harmonic_mean())
    assert math.isnan(nothing.metrics["all"]["coverage@20"])


def test_warm_candidates_without_any_truth_are_an_empty_slice(log, fixed_scores):
    rows = [row for row in log.rows if row[2] != "test"]
    warm = evaluate(fixed_scores(ITEM_SCORES), type(log)(rows, 4, 9)).slices["warm"]
    assert (warm.counts["users"], warm.counts["candidates"]) == (0, 4)
    assert all(math.isnan(value) for value in warm.metrics.values())
    assert all(bucket.users == 0 for bucket in warm.buckets.values())


def test_harmonic_mean_by_hand(log, fixed_scores):
    result = evaluate(fixed_scores(ITEM_SCORES), log, ks=(2,))
    values = [result.metrics[name]["recall@2"] for name in SLICES]
    assert values == pytest.approx([1.0, 1.0, 1 / 3])
    assert result.harmonic_mean("recall@2") == pytest.approx(3 / (1 + 1 + 3))
    worst = evaluate(fixed_scores(-ITEM_SCORES), log, ks=(1,), slices=("warm",))
    assert worst.metrics["warm"]["recall@1"] == 0.5
    with pytest.raises(ConfigError, match="no metric 'ndgc@2': did you mean 'ndcg@2'"):
        result.harmonic_mean("ndgc@2")


def test_harmonic_mean_is_zero_when_a_slice_is(log, fixed_scores):
    class Inverted(Oracle):
        def score(self, history, items):
            return -super().score(history, items)

    warm = evaluate(Inverted(build_slice(log, "test", "warm")), log, ks=(1,), slices=("warm",))
    assert (
        warm.harmonic_mean("recall@1") == 0.5
    )  # user 0 has one candidate left, which is the truth
    cold = evaluate(Inverted(build_slice(log, "test", "cold")), log, ks=(1,), slices=("cold",))
    assert cold.harmonic_mean("recall@1") == 0.0


def test_to_dict_is_plain_json_and_repeats(log, fixed_scores):
    first = evaluate(fixed_scores(ITEM_SCORES), log).to_dict()
    second = evaluate(fixed_scores(ITEM_SCORES), log).to_dict()
    assert json.loads(json.dumps(first, allow_nan=False)) == first == second
    assert first["split"] == "test"
    assert first["excluded"] == ["train", "valid"]
    assert first["slices"]["all"]["buckets"]["head"]["recall"] is None
    assert evaluate(fixed_scores(ITEM_SCORES), log, "valid").to_dict()["excluded"] == ["train"]


class Broken:
    def __init__(self, make):
        self.make = make

    def score(self, history, items):
        return self.make(history.shape[0], len(items))


def test_a_broken_scorer_is_named(log):
    with pytest.raises(DataError, match=r"Broken\.score must return one row per user .*\(2, 4\)"):
        evaluate(Broken(lambda b, c: np.zeros((b, c + 1))), log)
    with pytest.raises(DataError, match="is NaN"):
        evaluate(Broken(lambda b, c: np.full((b, c), np.nan)), log)


def test_wrong_arguments_are_named_before_work_starts(log):
    never = Broken(lambda b, c: pytest.fail("scored"))
    for problem, arguments in {
        "every cut-off must be at least 1": {"ks": (0, 10)},
        "every cut-off must": {"ks": ()},
        "unknown slice": {"slices": ("tepid",)},
        "cannot evaluate on split": {"split": "train"},
        "exclude_seen cannot name": {"exclude_seen": ("tset",)},
        "block_size must be at least 1": {"block_size": 0},
    }.items():
        with pytest.raises(ConfigError, match=problem):
            evaluate(never, log, **arguments)


class Factors:
    """A scorer the size of a real model: 64 factors."""

    def __init__(self, num_items, seed=0):
        self.vectors = np.random.default_rng(seed).standard_normal(
            (num_items, 64), dtype=np.float32
        )

    def score(self, history, items):
        return (history @ self.vectors) @ self.vectors[items].T


def test_the_size_of_movies_takes_under_a_second(make_log):
    log = make_log(num_users=602, num_items=2400, num_cold=480, per_user=80)
    columns = ["user_id", "item_id", "split"]
    catalog = Catalog.from_pandas(None, pd.DataFrame(log.rows, columns=columns))
    scorer = Factors(catalog.num_items)
    assert catalog.warm.any()  # reads the log once, which is not what is timed
    start = time.process_time()  # of all threads together, so other processes do not matter
    evaluate(scorer, catalog)
    spent = time.process_time() - start
    assert spent < 1.0


@pytest.mark.slow
def test_the_size_of_sports_stays_within_memory():
    num_users, num_items = 35_598, 18_357
    rng = np.random.default_rng(0)

    def draw(per_user):
        users = np.repeat(np.arange(num_users), per_user)
        items = rng.integers(0, num_items, len(users))
        ones = np.ones(len(users), dtype=np.float32)
        return sp.csr_matrix((ones, (users, items)), shape=(num_users, num_items))

    parts = {"train": draw(6), "valid": draw(1), "test": draw(1)}
    catalog = type("Frozen", (), {})()
    catalog.matrix = lambda *splits: sum(parts[s] for s in splits).tocsr()
    catalog.warm = parts["train"].getnnz(axis=0) > 0
    scorer = Factors(num_items)
    tracemalloc.start()
    part = build_slice(catalog, "test", "all")
    positions, _ = rank_slice(scorer, part, 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert positions.shape == (len(part.users), 20)
    assert peak < 1.2 * 2**30  # all scores at once would take 2.6 GB, twice that to rank them


class Ease:
    """EASE (Steck, 2019, arXiv:1905.03375) on the train rows; items without any score 0."""

    def __init__(self, train, regularisation):
        gram = (train.T @ train).toarray() + regularisation * np.eye(train.shape[1])
        inverse = np.linalg.inv(gram)
        self.weights = inverse / -np.diag(inverse)
        np.fill_diagonal(self.weights, 0)

    def score(self, history, items):
        return history @ self.weights[:, items]


@pytest.mark.data
def test_published_figures_on_movies(fixed_scores):
    folder = Path(__file__).parents[3] / "shared" / "data" / "movies"
    if not folder.is_dir():
        pytest.skip("the shared data set movies is not there")
    catalog = Catalog.from_folder(folder, DataConfig(interactions="benchmark.parquet"))
    train = catalog.matrix("train")

    popularity = evaluate(fixed_scores(train.getnnz(axis=0)), catalog)
    ease = evaluate(Ease(train, regularisation=200.0), catalog)
    assert popularity.slices["cold"].counts["candidates"] == 241
    assert popularity.slices["warm"].counts["candidates"] == 1930
    assert popularity.metrics["warm"]["ndcg@20"] == pytest.approx(0.127, abs=0.001)
    assert popularity.metrics["all"]["ndcg@20"] == pytest.approx(0.086, abs=0.001)
    assert ease.metrics["warm"]["ndcg@20"] == pytest.approx(0.239, abs=0.001)
    assert ease.metrics["all"]["ndcg@20"] == pytest.approx(0.161, abs=0.001)
    assert all(part.counts["unreachable"] == 0 for part in ease.slices.values())

    for name, result in evaluate(chance(), catalog).slices.items():
        values = result.per_user["recall@20"]
        allowed = result.counts["candidates"]
        if name != "cold":
            part = build_slice(catalog, "test", name)
            allowed = allowed - part.exclude.getnnz(axis=1)
        noise = values.std() / np.sqrt(len(values))
        assert abs(values.mean() - np.mean(20 / allowed)) < 3 * noise


def test_a_scorer_that_does_not_serve_cold_items_has_no_cold_figures(log, fixed_scores):
    serving = evaluate(fixed_scores(ITEM_SCORES), log, "test", ks=(1, 2))
    scorer = fixed_scores(ITEM_SCORES)
    object.__setattr__(scorer, "serves_cold", False)
    found = evaluate(scorer, log, "test", ks=(1, 2))
    cold = found.slices["cold"]
    assert cold.counts == serving.slices["cold"].counts
    assert cold.metrics.keys() == serving.slices["cold"].metrics.keys()
    assert all(math.isnan(value) for value in cold.metrics.values())
    assert all(np.isnan(values).all() for values in cold.per_user.values())
    assert all(math.isnan(bucket.recall) for bucket in cold.buckets.values())
    for name in ("warm", "all"):
        assert found.metrics[name] == serving.metrics[name]
    assert math.isnan(found.harmonic_mean("ndcg@2"))
    json.dumps(found.to_dict(), allow_nan=False)
