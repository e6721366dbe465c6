from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mmalign.data.catalog import Catalog
from mmalign.evaluation.protocol import evaluate
from mmalign.models.calibration import Calibration
from mmalign.trainers.calibrate import RIDGE_SCALE, choose_calibration

USERS, WARM, COLD = 60, 60, 40


class Known:
    """Scores are known for each user, who is known by the first item of the history."""

    serves_cold = True
    uses_content = True

    def __init__(self, **parts):
        self.parts = parts
        self.warm = np.arange(WARM + COLD) < WARM

    def components(self, history):
        users = history.sorted_indices().indices[history.indptr[:-1]]
        return {name: scores[users] for name, scores in self.parts.items()}


@pytest.fixture
def likes(rng):
    return rng.normal(size=(USERS, WARM + COLD)).astype(np.float32)


def catalog(likes, *, cold=True, valid=True, taken=None, liked=10):
    """User u has item u and ``taken[u]`` others in train and, in valid, the ``liked`` best."""
    more = np.zeros(USERS, int) if taken is None else taken
    train = [[u, *range(max(u + 1, WARM - more[u]), WARM)] for u in range(USERS)]
    rows = [(f"u{u:02}", f"i{i:02}", "train") for u in range(USERS) for i in train[u]]
    seen = likes.copy() if cold else likes[:, :WARM].copy()
    for u in range(USERS):
        seen[u, train[u]] = -np.inf
    if valid:
        best = np.argsort(-seen, axis=1)[:, :liked]
        rows += [(f"u{u:02}", f"i{i:02}", "valid") for u in range(USERS) for i in best[u]]
    items = pd.DataFrame({"item_id": [f"i{i:02}" for i in range(likes.shape[1])]})
    log = pd.DataFrame(rows, columns=["user_id", "item_id", "split"])
    return Catalog.from_pandas(items, log)


class Calibrated:
    def __init__(self, model, calibration):
        self.model, self.calibration = model, calibration

    def score(self, history, items):
        parts, taken = self.model.components(history), history.getnnz(axis=1)
        return self.calibration.apply(parts, self.model.warm, taken)[:, items]


def reached(model, shop, calibration):
    """The harmonic mean of the slices, by the protocol that measures everything else."""
    return evaluate(Calibrated(model, calibration), shop, "valid", ks=(20,)).harmonic_mean()


@pytest.mark.parametrize("factor", [0.5, 2.0, 5.0])
def test_makes_up_for_a_planted_scale_of_cold_scores(likes, factor):
    damped, shop = likes.copy(), catalog(likes)
    damped[:, WARM:] /= factor
    model = Known(score=damped)
    found = choose_calibration(model, shop)
    assert reached(model, shop, found) > 0.98
    assert reached(model, shop, found) > reached(model, shop, Calibration()) + 0.02


def test_finds_the_planted_shift_of_cold_scores(likes):
    lowered = likes.copy()
    lowered[:, WARM:] -= 1
    found = choose_calibration(Known(network=lowered), catalog(likes))
    assert found.cold_shift == pytest.approx(1, abs=0.3)


def test_lists_that_end_early_are_not_filled_up(likes):
    few, lowered = likes[:, : WARM + 6], likes[:, : WARM + 6].copy()
    lowered[:, WARM:] -= 1
    model, shop = Known(network=lowered), catalog(few)
    model.warm = model.warm[: WARM + 6]
    found = choose_calibration(model, shop)
    assert found.cold_shift > 0.2  # slots without an item, at a score of 0, would draw it below 0
    assert reached(model, shop, found) > 0.995


def test_finds_that_long_histories_want_a_smaller_scale(likes):
    taken = np.arange(USERS) % 20
    shop = catalog(likes, taken=taken)
    histories = np.minimum(1 + taken, WARM - np.arange(USERS))
    damped = likes.copy()
    damped[:, WARM:] *= ((1 + histories[:, None]) / 6) ** 0.7
    model = Known(score=damped)
    found = choose_calibration(model, shop)
    assert found.scale_power == pytest.approx(-0.7, abs=0.2)
    assert found.usual_history == pytest.approx(np.expm1(np.log1p(histories).mean()))
    assert reached(model, shop, found) > 0.98
    assert reached(model, shop, found) > reached(model, shop, replace(found, scale_power=0)) + 0.01


def test_users_without_a_history_are_shown_what_is_popular_and_say_nothing(likes):
    shop = catalog(likes)
    log = shop.interactions
    strangers = log[(log.split == "valid") & log.item_id.isin([f"i{i:02}" for i in range(60)])]
    strangers = strangers.assign(user_id="z" + strangers.user_id)
    more = type(shop).from_pandas(shop.items, pd.concat([log, strangers]))
    model = Known(score=likes / 3)
    assert choose_calibration(model, more) == choose_calibration(model, shop)


def test_one_user_whose_warm_scores_hardly_differ_does_not_decide(likes):
    shop, degenerate = catalog(likes), likes.copy()
    degenerate[7, :WARM] *= 1e-4
    plain = choose_calibration(Known(score=likes), shop)
    found = choose_calibration(Known(score=degenerate), shop)
    assert found.cold_scale == pytest.approx(plain.cold_scale, rel=0.5)  # else a twentieth of it


def test_a_handful_of_users_moves_the_default_little(likes):
    few = likes.copy()
    few[:, WARM:] += 2  # cold items first, which a shift without bound would go after
    shop = catalog(few)
    log = shop.interactions
    kept = log[(log.split == "train") | (log.user_id < "u03")]
    found = choose_calibration(Known(score=likes), replace(shop, interactions=kept))
    assert found.cold_shift < 2
    assert 1 < found.cold_scale < 2 * RIDGE_SCALE


def test_gives_the_weight_to_the_part_that_knows(likes, rng):
    noise = rng.normal(size=likes.shape).astype(np.float32)
    found = choose_calibration(Known(network=noise, teacher=likes), catalog(likes))
    assert found.weights["teacher"] >= 0.8
    assert sum(found.weights.values()) == pytest.approx(1)


def test_a_network_that_knows_nothing_of_cold_items_has_no_say_in_them(likes, rng):
    astray = likes.copy()
    astray[:, WARM:] = 3 * rng.normal(size=(USERS, COLD))
    found = choose_calibration(Known(network=astray, teacher=likes), catalog(likes))
    assert found.cold_weights == {"network": 0.0, "teacher": 1.0}


def test_a_small_gain_does_not_move_the_share_of_the_network_in_cold_scores(likes, rng):
    slightly = likes + 0.02 * rng.normal(size=likes.shape).astype(np.float32)
    found = choose_calibration(Known(network=slightly, teacher=likes), catalog(likes))
    assert found.cold_weights == {"network": 0.3, "teacher": 0.7}


def test_what_valid_cannot_tell_stays_at_its_default(likes):
    model = Known(network=likes, teacher=likes)
    default = Calibration(
        weights={"network": 0.5, "teacher": 0.5},
        cold_weights={"network": 0.3, "teacher": 0.7},
        cold_scale=RIDGE_SCALE,
    )
    assert choose_calibration(model, catalog(likes, valid=False)) == default
    without_cold = choose_calibration(model, catalog(likes, cold=False))
    assert without_cold == replace(default, weights=without_cold.weights)


def test_a_model_without_cold_scores_is_left_as_it_is(likes):
    model = Known(score=likes)
    model.serves_cold = False
    assert choose_calibration(model, catalog(likes)) == Calibration()


def test_is_deterministic_and_bounded_in_users(likes, monkeypatch):
    model, shop = Known(score=likes / 3), catalog(likes)
    assert choose_calibration(model, shop) == choose_calibration(model, shop)
    asked = []
    monkeypatch.setattr("mmalign.trainers.calibrate.MAX_SCORES", 7 * (WARM + COLD))
    monkeypatch.setattr(
        model, "components", lambda h, real=model.components: asked.append(h.shape[0]) or real(h)
    )
    choose_calibration(model, shop, seed=1)
    assert max(asked) == 7


def test_the_users_that_are_asked_are_drawn_by_the_seed(likes, monkeypatch):
    model, shop, asked = Known(score=likes / 3), catalog(likes), []
    monkeypatch.setattr("mmalign.trainers.calibrate.MAX_SCORES", 7 * (WARM + COLD))
    real = model.components
    monkeypatch.setattr(
        model, "components", lambda h: asked.append({*h.indices.tolist()}) or real(h)
    )
    for seed in (1, 2):
        choose_calibration(model, shop, seed=seed)
    first, second = (users for users in asked if len(users) == 7)
    assert first != second
    assert first != {*range(7)}


def test_users_may_have_liked_more_than_the_list_is_long(likes):
    model, shop = Known(score=likes), catalog(likes, liked=25)
    assert reached(model, shop, choose_calibration(model, shop)) > 0.98


def test_cold_scores_by_chance_are_not_scaled(likes):
    model = Known(score=likes)
    model.uses_content = False
    assert choose_calibration(model, catalog(likes)) == Calibration()
