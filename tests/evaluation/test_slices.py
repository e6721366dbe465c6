from __future__ import annotations

import numpy as np
import pytest

from mmalign.errors import ConfigError
from mmalign.evaluation.slices import build_slice
from mmalign.interfaces import SLICES


def pairs(part, matrix):
    """Back to catalogue rows."""
    rows, columns = matrix.nonzero()
    return {
        (int(part.users[r]), int(part.candidates[c])) for r, c in zip(rows, columns, strict=True)
    }


def test_warm_on_test(log):
    part = build_slice(log, "test", "warm")
    assert part.users.tolist() == [0, 1]
    assert part.candidates.tolist() == [0, 1, 2, 3]
    assert pairs(part, part.truth) == {(0, 3), (1, 1)}
    assert pairs(part, part.exclude) == {(0, 0), (0, 1), (0, 2), (1, 0), (1, 2)}


def test_cold_on_test_leaves_items_with_valid_rows_out(log):
    part = build_slice(log, "test", "cold")
    assert part.users.tolist() == [0, 1, 3]
    assert part.candidates.tolist() == [5, 6]
    assert pairs(part, part.truth) == {(0, 5), (1, 6), (3, 5)}
    assert part.exclude.nnz == 0


def test_all_on_test_is_both(log):
    part = build_slice(log, "test", "all")
    assert part.users.tolist() == [0, 1, 3]
    assert part.candidates.tolist() == [0, 1, 2, 3, 5, 6]
    assert pairs(part, part.truth) == {(0, 3), (0, 5), (1, 1), (1, 6), (3, 5)}


def test_valid_excludes_train_only_and_its_cold_items_have_only_valid_rows(log):
    warm, cold = build_slice(log, "valid", "warm"), build_slice(log, "valid", "cold")
    assert pairs(warm, warm.truth) == {(0, 2)}
    assert pairs(warm, warm.exclude) == {(0, 0), (0, 1)}
    assert cold.candidates.tolist() == [4]
    assert pairs(cold, cold.truth) == {(0, 4), (1, 4)}


@pytest.mark.parametrize("split", ["valid", "test"])
@pytest.mark.parametrize("name", SLICES)
def test_the_history_is_the_train_rows_and_nothing_else(log, split, name):
    part = build_slice(log, split, name)
    assert part.history.shape == (len(part.users), 9)
    assert np.array_equal(part.history.toarray(), log.matrix("train")[part.users].toarray())


def test_exclude_seen_is_obeyed(log):
    def excluded(*seen):
        part = build_slice(log, "test", "warm", exclude_seen=seen)
        return pairs(part, part.exclude)

    assert excluded() == set()
    assert excluded("train") == {(0, 0), (0, 1), (1, 0), (1, 2)}
    assert excluded("valid") == {(0, 2)}
    assert excluded("valid", "train") == excluded("train", "valid")


def test_a_row_of_weight_zero_is_still_a_row(log):
    def without_weights(*splits):
        matrix = type(log).matrix(log, *splits)
        matrix.data[:] = 0
        return matrix

    bare = type("Bare", (), {"matrix": staticmethod(without_weights), "warm": log.warm})()
    for name in SLICES:
        expected, part = build_slice(log, "test", name), build_slice(bare, "test", name)
        assert pairs(part, part.truth) == pairs(expected, expected.truth)
        assert pairs(part, part.exclude) == pairs(expected, expected.exclude)


@pytest.mark.parametrize("split", ["valid", "test"])
def test_slices_fit_together_on_a_random_log(make_log, split):
    log = make_log()
    warm, cold, both = (build_slice(log, split, name) for name in SLICES)
    assert set(warm.candidates) | set(cold.candidates) == set(both.candidates)
    assert not set(warm.candidates) & set(cold.candidates)
    assert pairs(warm, warm.truth) | pairs(cold, cold.truth) == pairs(both, both.truth)
    assert pairs(both, both.truth) <= {(u, i) for u, i, s in log.rows if s == split}
    for part in (warm, cold, both):
        assert part.truth.getnnz(axis=1).all()
        assert not pairs(part, part.truth) & pairs(part, part.exclude)


def test_unknown_names_are_named(log):
    with pytest.raises(ConfigError, match="unknown slice 'wram': did you mean 'warm'"):
        build_slice(log, "test", "wram")
    with pytest.raises(ConfigError, match=r"cannot evaluate on split 'train': .*valid, test|test"):
        build_slice(log, "train", "warm")
    with pytest.raises(ConfigError, match="exclude_seen cannot name 'test'"):
        build_slice(log, "test", "warm", exclude_seen=("test",))
