"""What is set aside, revealed and ranked, by hand and on random logs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from mmalign.data.catalog import Catalog
from mmalign.errors import ConfigError
from mmalign.evaluation.kshot import SHOTS, draw_shots, with_train_rows
from mmalign.evaluation.protocol import evaluate
from mmalign.evaluation.slices import build_slice


def pairs(matrix):
    return set(zip(*(x.tolist() for x in matrix.nonzero()), strict=True))


@pytest.fixture
def small(log):
    """Items 0 and 1 are warm; of 2, 3 and 4 there are 3, 2 and 1 test rows."""
    rows = [(0, 0, "train"), (1, 1, "train"), (2, 1, "train")]
    rows += [(0, 2, "test"), (1, 2, "test"), (2, 2, "test"), (0, 3, "test"), (1, 3, "test")]
    return type(log)([*rows, (2, 4, "test")], num_users=3, num_items=5)


def test_by_hand(small, fixed_scores):
    """One row of items 2 and 3 is set aside; item 4 has no more than that and is not ranked."""
    drawn = draw_shots(small, most=1, seed=0)
    part = drawn.part
    assert part.candidates.tolist() == [2, 3]
    aside = pairs(drawn.revealed(1))
    assert sorted(item for _, item in aside) == [2, 3]
    rest = {(0, 2), (1, 2), (2, 2), (0, 3), (1, 3)} - aside
    assert part.users.tolist() == sorted({user for user, _ in rest})

    # Item 2 stands first for everybody; a user without a truth is not counted.
    expected = []
    for user in part.users:
        order = [item for item in (2, 3) if (user, item) not in aside]
        truths = [item for item in (2, 3) if (user, item) in rest]
        gain = sum(1 / np.log2(2 + order.index(item)) for item in truths)
        expected.append(gain / sum(1 / np.log2(2 + place) for place in range(len(truths))))
    scorer = fixed_scores(np.array([9.0, 9.0, 2.0, 1.0, 9.0]))
    found = drawn.measure(scorer, 1)
    assert found["ndcg@20"] == pytest.approx(np.mean(expected))
    assert found["recall@20"] == 1
    assert drawn.measure(scorer, 0) == found  # a scorer that hears nothing draws a flat line


def test_nothing_set_aside_is_the_cold_slice(make_log, fixed_scores):
    log = make_log()
    scorer = fixed_scores(np.random.default_rng(1).random(log.num_items))
    expected = evaluate(scorer, log, "test", ks=(20,), slices=("cold",)).metrics["cold"]
    found = draw_shots(log, "test", most=0).measure(scorer, 0)
    assert found == {name: pytest.approx(expected[name]) for name in ("ndcg@20", "recall@20")}


@pytest.mark.parametrize("split", ["valid", "test"])
@pytest.mark.parametrize("seed", range(5))
def test_reveals_are_nested_and_nothing_else_changes(make_log, split, seed):
    log = make_log(seed=seed)
    drawn, cold = draw_shots(log, split, seed=seed), build_slice(log, split, "cold")
    everything = {(int(cold.users[u]), int(cold.candidates[i])) for u, i in pairs(cold.truth)}
    part, before = drawn.part, set()
    truth = {(int(part.users[u]), int(part.candidates[i])) for u, i in pairs(part.truth)}
    assert len(part.candidates) > 5
    for k in SHOTS:
        revealed = pairs(drawn.revealed(k))
        counts = np.bincount([item for _, item in revealed], minlength=log.num_items)
        assert (counts[part.candidates] == k).all()
        assert before <= revealed <= everything
        assert not revealed & truth
        before = revealed
    ranked = {pair for pair in everything if pair[1] in part.candidates}
    assert truth | before == ranked
    excluded = {(int(part.users[u]), int(part.candidates[i])) for u, i in pairs(part.exclude)}
    assert excluded == {pair for pair in before if pair[0] in part.users}
    assert part.truth.getnnz(axis=1).all()


def test_a_seed_decides(make_log):
    log = make_log()
    one, same, other = (draw_shots(log, seed=seed) for seed in (4, 4, 5))
    assert pairs(one.revealed(2)) == pairs(same.revealed(2)) != pairs(other.revealed(2))


def test_a_scorer_is_told_what_is_revealed(make_log):
    log, told = make_log(), []

    class Spy:
        def score(self, history, items):
            told.append(history)
            return np.zeros((history.shape[0], len(items)), np.float32)

    drawn = draw_shots(log)
    drawn.measure(Spy(), 5)
    expected = log.matrix("train") + drawn.revealed(5)
    np.testing.assert_array_equal(sp.vstack(told).toarray(), expected[drawn.part.users].toarray())


def test_nobody_to_rank_for(log, fixed_scores):
    drawn = draw_shots(log)
    assert len(drawn.part.users) == len(drawn.part.candidates) == drawn.revealed(3).nnz == 0
    assert np.isnan(drawn.measure(fixed_scores(np.zeros(9)), 3)["ndcg@20"])


def test_bad_numbers_are_named(make_log):
    with pytest.raises(ConfigError, match="most must not be negative"):
        draw_shots(make_log(), most=-1)
    drawn = draw_shots(make_log(), most=3)
    for k in (-1, 4):
        with pytest.raises(ConfigError, match="k must lie between 0 and 3"):
            drawn.revealed(k)


def test_revealed_rows_move_to_train():
    rng = np.random.default_rng(0)
    rows = [(f"u{u}", f"i{i}", "train") for u in range(8) for i in rng.choice(4, 2, False)]
    rows += [(f"u{u}", f"i{i}", "test") for u in range(8) for i in (4, 5)]
    log = pd.DataFrame(rows, columns=["user_id", "item_id", "split"])
    catalog = Catalog.from_pandas(None, log.assign(weight=2.0))
    drawn = draw_shots(catalog, most=3)
    known = with_train_rows(catalog, drawn.revealed(2))
    expected = catalog.matrix("train") + drawn.revealed(2)
    assert not (known.matrix("train") != expected).nnz
    assert not (known.matrix() + known.matrix("test") != catalog.matrix("train", "test")).nnz
    assert known.warm.all()
    assert not catalog.warm[4:].any()
    assert sp.csr_matrix(drawn.revealed(2)).data.tolist() == [2.0] * 4
