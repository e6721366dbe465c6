"""Recommend, fold in, take items in, find an audience: by the ids that users of the library see."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from mmalign.data.catalog import Catalog
from mmalign.errors import ConfigError, DataError
from mmalign.interfaces import Feature
from mmalign.models import MODELS
from mmalign.recommender import Recommender
from mmalign.recommender import recommender as module

Make = Callable[[str], Recommender]
EVERYTHING = np.arange(16)
WARM_IDS = [f"i{i:02}" for i in range(12)]
COLD_IDS = [f"i{i:02}" for i in range(12, 16)]


def taken(catalog: Catalog, user: str, *splits: str) -> set[str]:
    log = catalog.interactions
    return set(log[(log.user_id == user) & log.split.isin(splits or ("train",))].item_id)


class TestRecommend:
    def test_ranks_by_score_without_what_was_seen(
        self, recommender: Recommender, catalog: Catalog
    ) -> None:
        found = recommender.recommend(["u00", "u05"], k=4)
        assert found.columns.tolist() == ["user_id", "item_id", "rank", "score"]
        assert found.user_id.tolist() == ["u00"] * 4 + ["u05"] * 4
        assert found["rank"].tolist() == [1, 2, 3, 4] * 2
        scores = recommender.score(catalog.matrix("train"), EVERYTHING)
        for user, own in found.groupby("user_id"):
            row = catalog.user_rows([user])[0]
            seen = taken(catalog, str(user), "train", "valid")
            free = [i for i in EVERYTHING if catalog.item_ids[i] not in seen]
            best = sorted(free, key=lambda i, row=row: -scores[row, i])[:4]  # type: ignore[misc]
            assert own.item_id.tolist() == catalog.item_ids[best].tolist()
            np.testing.assert_array_equal(own.score, scores[row, best])

    def test_all_users_in_blocks(
        self, recommender: Recommender, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.warns(UserWarning, match="^1 users have no history"):
            whole = recommender.recommend("all", k=3)
        assert whole.user_id.unique().tolist() == [f"u{u:02}" for u in range(24)]
        monkeypatch.setattr(module, "BLOCK", 5)
        with pytest.warns(UserWarning, match="^1 users have no history"):
            parts = recommender.recommend("all", k=3)
        pd.testing.assert_frame_equal(whole, parts, rtol=1e-4)

    @pytest.mark.parametrize("candidates", ["warm", "cold", "all"])
    def test_candidates(self, recommender: Recommender, candidates: str) -> None:
        allowed = {"warm": WARM_IDS, "cold": COLD_IDS, "all": WARM_IDS + COLD_IDS}[candidates]
        found = recommender.recommend(["u03"], k=50, candidates=candidates, exclude_seen=())
        assert sorted(found.item_id) == allowed

    def test_exclude_seen(self, recommender: Recommender, catalog: Catalog) -> None:
        def missing(*splits: str) -> set[str]:
            found = recommender.recommend(["u00"], k=99, exclude_seen=splits)
            return set(catalog.item_ids) - set(found.item_id)

        assert missing() == set()
        assert missing("train") == taken(catalog, "u00", "train")
        assert missing("valid") == {"i12"}
        assert missing("train", "valid") == taken(catalog, "u00", "train") | {"i12"}

    def test_filter_by_a_condition(self, recommender: Recommender) -> None:
        found = recommender.recommend(["u00"], 99, exclude_seen=(), filter="price < 9")
        assert sorted(found.item_id) == [f"i{i:02}" for i in range(9) if i != 7]  # 7 has no price
        found = recommender.recommend(["u00"], 99, exclude_seen=(), filter="kind == 'mug'")
        assert sorted(found.item_id) == [f"i{i:02}" for i in range(1, 16, 2)]

    @pytest.mark.parametrize(
        "mask",
        [
            lambda items: items.price >= 12,
            lambda items: (items.price >= 12).to_numpy(),
            lambda items: (items.price >= 12).tolist(),
            lambda items: items.price.convert_dtypes() >= 12,  # NA where there is no price
        ],
    )
    def test_filter_by_a_function(
        self, recommender: Recommender, mask: Callable[[pd.DataFrame], object]
    ) -> None:
        found = recommender.recommend(["u02"], 99, exclude_seen=(), filter=mask)
        assert sorted(found.item_id) == COLD_IDS

    @pytest.mark.parametrize(
        "mask",
        [
            lambda items: True,
            lambda items: [True, False],
            lambda items: items[items.price > 3],
            lambda items: items.price,
            lambda items: items.item_id,
        ],
    )
    def test_a_filter_that_gives_no_mask(
        self, recommender: Recommender, mask: Callable[[pd.DataFrame], object]
    ) -> None:
        with pytest.raises(DataError, match="one bool for each of 16 items"):
            recommender.recommend(["u02"], filter=mask)

    def test_a_filter_that_nothing_passes(self, recommender: Recommender) -> None:
        found = recommender.recommend(["u00", "u01"], filter="price > 1000")
        assert found.empty
        assert found.columns.tolist() == ["user_id", "item_id", "rank", "score"]

    def test_an_empty_list_of_users(self, recommender: Recommender) -> None:
        found = recommender.recommend([])
        assert found.empty
        assert found.columns.tolist() == ["user_id", "item_id", "rank", "score"]

    def test_a_generator_of_users(self, recommender: Recommender) -> None:
        def users() -> Iterator[str]:
            yield from ("u04", "u02")

        found = recommender.recommend(users(), k=2)
        assert found.user_id.tolist() == ["u04", "u04", "u02", "u02"]

    def test_a_user_asked_for_twice_is_answered_twice(self, recommender: Recommender) -> None:
        found = recommender.recommend(["u04", "u04"], k=2)
        assert found.item_id[:2].tolist() == found.item_id[2:].tolist()

    def test_k_beyond_the_candidates(self, recommender: Recommender) -> None:
        """Nor does a list of this length have to fit into memory."""
        found = recommender.recommend(["u02"], k=10**14, candidates="cold")
        assert sorted(found.item_id) == COLD_IDS
        assert found["rank"].tolist() == [1, 2, 3, 4]

    def test_unknown_users_get_popular_items_and_it_is_said(
        self, recommender: Recommender, catalog: Catalog
    ) -> None:
        with pytest.warns(UserWarning, match="^2 users have no history .*: popular items"):
            found = recommender.recommend(["nobody", "u23"], k=99, candidates="warm")
        counts = catalog.matrix("train").getnnz(axis=0)[:12]
        popular = [WARM_IDS[i] for i in np.lexsort((np.arange(12), -counts))]
        assert found[found.user_id == "nobody"].item_id.tolist() == popular
        assert found[found.user_id == "u23"].item_id.tolist() == [i for i in popular if i != "i01"]

    def test_popularity_is_the_standardised_logarithm_of_the_users(
        self, recommender: Recommender, catalog: Catalog
    ) -> None:
        scores = recommender.score(sp.csr_matrix((1, 16), dtype=np.float32), EVERYTHING)[0]
        logs = np.log1p(catalog.matrix("train").getnnz(axis=0)[:12])
        np.testing.assert_allclose(scores[:12], (logs - logs.mean()) / logs.std(), atol=1e-5)

    def test_known_users_are_not_warned_of(self, recommender: Recommender) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            recommender.recommend(["u00", "u01"])

    def test_popularity_puts_cold_items_on_the_same_scale(self, recommender: Recommender) -> None:
        with pytest.warns(UserWarning, match="popular items"):
            found = recommender.recommend(["nobody"], k=99)
        assert sorted(found.item_id) == WARM_IDS + COLD_IDS
        assert found.score.abs().max() < 10

    @pytest.mark.parametrize(
        ("arguments", "problem"),
        [
            ({"users": "u00"}, "users must be a list of ids .got 'u00'"),
            ({"k": 0}, "k must be at least 1"),
            ({"k": -3, "users": ["u01"]}, "k must be at least 1"),
            ({"candidates": "cool"}, "did you mean 'cold'"),
            ({"exclude_seen": ("tran",)}, "did you mean 'train'"),
            ({"exclude_seen": ("test",)}, "cannot name 'test'"),
            ({"filter": "price"}, "write it like"),
            ({"filter": 5}, "a condition or a function .got 5"),
            ({"filter": ["price < 3", 5]}, "a condition or a function .got 5"),
            ({"candidates": ["i01", "i02"]}, "warm, cold or all .*item_id.isin"),
            ({"exclude_seen": "train"}, "a list of splits .got 'train'"),
            ({"exclude_seen": False}, "a list of splits .got False"),
            ({"users": [None]}, "an id of users is missing"),
            ({"users": 7}, "users must be a list of ids .got 7"),
        ],
    )
    def test_wrong_arguments(
        self, recommender: Recommender, arguments: dict[str, object], problem: str
    ) -> None:
        with pytest.raises(ConfigError, match=problem):
            recommender.recommend(**arguments)  # type: ignore[arg-type]

    def test_a_filter_on_a_column_that_is_not_there(self, recommender: Recommender) -> None:
        with pytest.raises(DataError, match="did you mean 'price'"):
            recommender.recommend(["u00"], filter="prise < 3")


@pytest.mark.parametrize("name", MODELS)
class TestEveryModel:
    def test_fold_in_equals_recommend_for_the_same_history(
        self, make: Make, catalog: Catalog, name: str
    ) -> None:
        recommender = make(name)
        for user in ("u02", "u11"):
            known = recommender.recommend([user], k=8).drop(columns="user_id")
            folded = recommender.fold_in(sorted(taken(catalog, user)), k=8)
            pd.testing.assert_frame_equal(folded, known, rtol=1e-5)

    def test_serves_nobody_and_everybody(self, make: Make, name: str) -> None:
        recommender = make(name)
        assert recommender.recommend([]).empty
        with pytest.warns(UserWarning, match="popular items"):
            found = recommender.recommend("all", k=3)
        assert len(found) == 24 * 3
        assert np.isfinite(found.score).all()

    def test_takes_new_items_in_and_ranks_them(
        self, make: Make, features: dict[str, Feature], name: str
    ) -> None:
        recommender = make(name)
        before = recommender.recommend(["u00", "u01"], k=99)
        content = {n: x.rows(np.array([0, 14])) for n, x in features.items()}
        recommender.add_items(pd.DataFrame({"item_id": ["new", 17], "price": [1.0, 2.0]}), content)
        after = recommender.recommend(["u00", "u01"], k=99)
        assert set(after.item_id) - set(before.item_id) == {"new", "17"}
        old = after[after.item_id.isin(before.item_id)]
        pd.testing.assert_series_equal(
            before.set_index(["user_id", "item_id"]).score,
            old.set_index(["user_id", "item_id"]).score,
            rtol=1e-4,
            atol=1e-5,
            check_like=True,
        )
        assert "new" in set(recommender.recommend(["u00"], filter="price < 1.5", k=99).item_id)
        assert len(recommender.fold_in(["i01", "new"], k=3)) == 3
        assert len(recommender.similar_items("i00", k=99)) <= 17

    def test_catalogue_rows_in_another_order(self, make: Make, catalog: Catalog, name: str) -> None:
        recommender = make(name)
        order = np.random.default_rng(0).permutation(16)
        other = Catalog.from_pandas(
            catalog.items.iloc[order], catalog.interactions, config=catalog.config
        )
        straight = recommender.for_catalog(catalog).score(catalog.matrix(), EVERYTHING)
        permuted = recommender.for_catalog(other).score(other.matrix(), EVERYTHING)
        np.testing.assert_array_equal(permuted, straight[:, order])
        some = recommender.for_catalog(other).score(other.matrix(), np.array([2, 5]))
        np.testing.assert_array_equal(some, permuted[:, [2, 5]])


class TestForCatalog:
    def test_cold_scores_depend_on_the_length_of_the_history(
        self, recommender: Recommender, catalog: Catalog
    ) -> None:
        calibration = replace(recommender.calibration, usual_history=3.0, scale_power=-0.5)
        recommender.calibration = calibration
        history = sp.csr_matrix(np.tri(6, 16, dtype=np.float32))
        parts = recommender.model.components(history)
        expected = calibration.apply(parts, recommender.warm, history.getnnz(axis=1))
        found = recommender.for_catalog(catalog).score(history, EVERYTHING)
        np.testing.assert_array_equal(found, expected)
        alike = calibration.apply(parts, recommender.warm)
        assert np.abs(found - alike)[[0, 5], 12:].max(axis=1).min() > 0.1
        np.testing.assert_array_equal(found[2], alike[2])

    def test_an_unknown_candidate(self, recommender: Recommender, catalog: Catalog) -> None:
        items = pd.concat([catalog.items, pd.DataFrame({"item_id": ["odd"]})])
        other = Catalog.from_pandas(items, catalog.interactions, config=catalog.config)
        scorer = recommender.for_catalog(other)
        with pytest.raises(DataError, match=r"1 candidates are not in the artefact .got 'odd'"):
            scorer.score(other.matrix(), np.arange(17))
        assert scorer.score(other.matrix(), EVERYTHING).shape == (24, 16)

    def test_a_history_with_an_unknown_item_keeps_the_rest(
        self, recommender: Recommender, catalog: Catalog
    ) -> None:
        items = pd.concat([pd.DataFrame({"item_id": ["odd"]}), catalog.items])
        log = pd.concat(
            [
                catalog.interactions,
                pd.DataFrame({"user_id": ["u00"], "item_id": ["odd"], "split": ["train"]}),
            ]
        ).drop(columns="weight")
        other = Catalog.from_pandas(items, log, config=catalog.config)
        scores = recommender.for_catalog(other).score(other.matrix(), np.arange(1, 17))
        expected = recommender.score(catalog.matrix(), EVERYTHING)
        np.testing.assert_array_equal(scores, expected)


class TestFoldIn:
    def test_leaves_the_history_out(self, recommender: Recommender) -> None:
        found = recommender.fold_in(iter(["i03", "i12"]), k=99)
        assert found.columns.tolist() == ["item_id", "rank", "score"]
        assert not {"i03", "i12"} & set(found.item_id)
        assert len(found) == 14

    def test_candidates_and_filter(self, recommender: Recommender) -> None:
        found = recommender.fold_in(["i03"], 99, candidates="cold", filter="price > 13")
        assert sorted(found.item_id) == ["i14", "i15"]

    def test_weights_are_those_of_the_log(self, recommender: Recommender) -> None:
        ids, rows = recommender.item_ids, recommender.seen["train"]
        rows.data = np.arange(1, rows.nnz + 1, dtype=np.float32)
        history, weights = ids[rows[0].indices], rows[0].data
        expected = recommender.recommend([recommender.user_ids[0]], 9, exclude_seen=["train"])
        found = recommender.fold_in(history, 9, weights=weights)
        assert found.item_id.tolist() == expected.item_id.tolist()
        np.testing.assert_allclose(found.score, expected.score, rtol=1e-5)
        assert recommender.fold_in(history, 9).score.tolist() != found.score.tolist()

    @pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, float("nan")]])
    def test_weights_that_do_not_fit(self, recommender: Recommender, weights: list[float]) -> None:
        with pytest.raises(ConfigError, match="weights must be 2 numbers above 0"):
            recommender.fold_in(["i01", "i02"], weights=weights)

    def test_no_history_gets_popular_items(self, recommender: Recommender) -> None:
        with pytest.warns(UserWarning, match="popular items"):
            found = recommender.fold_in([], k=99)
        with pytest.warns(UserWarning, match="popular items"):
            nobody = recommender.recommend(["nobody"], k=99).drop(columns="user_id")
        pd.testing.assert_frame_equal(found, nobody)

    @pytest.mark.parametrize("name", ["ease", "item_knn", "kernel_ridge"])
    def test_a_history_of_which_the_model_knows_nothing(self, make: Make, name: str) -> None:
        """Rows of a tie in row order are no recommendation."""
        with pytest.warns(UserWarning, match="popular items"):
            make(name).fold_in(["i13"], k=3)

    def test_a_cold_history_says_something_to_the_network(self, make: Make) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            make("aligned").fold_in(["i13"], k=3)

    def test_an_unknown_item(self, recommender: Recommender) -> None:
        with pytest.raises(DataError, match=r"1 unknown item ids .got 'i99'"):
            recommender.fold_in(["i01", "i99"])


class TestAddItems:
    def content(self, features: dict[str, Feature], *rows: int) -> dict[str, Feature]:
        return {name: x.rows(np.array(rows, dtype=np.int64)) for name, x in features.items()}

    def test_twins_of_cold_items_score_as_they_do(
        self, recommender: Recommender, catalog: Catalog, features: dict[str, Feature]
    ) -> None:
        recommender.add_items(pd.DataFrame({"item_id": ["a", "b"]}), self.content(features, 12, 14))
        history = sp.csr_matrix(catalog.matrix(), shape=(24, 16))
        history.resize((24, 18))
        scores = recommender.score(history, np.arange(18))
        np.testing.assert_allclose(scores[:, 16:], scores[:, [12, 14]], rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize(
        ("ids", "problem"),
        [
            (["a", "i03"], "1 new items are in the artefact already .got 'i03'"),
            (["a", "a"], "1 new items are given twice .got 'a'"),
            (["a", None], "rows without item_id"),
        ],
    )
    def test_ids_must_be_new(
        self,
        recommender: Recommender,
        features: dict[str, Feature],
        ids: list[str],
        problem: str,
    ) -> None:
        with pytest.raises(DataError, match=problem):
            recommender.add_items(pd.DataFrame({"item_id": ids}), self.content(features, 1, 2))
        assert len(recommender.items) == len(recommender.warm) == 16

    def test_wrong_content_changes_nothing(
        self, recommender: Recommender, features: dict[str, Feature]
    ) -> None:
        before = recommender.recommend(["u00"], k=99)
        one = pd.DataFrame({"item_id": ["a"]})
        good = self.content(features, 1)
        wide = Feature(np.ones((1, 9), np.float32), np.ones(1, bool))
        for wrong in (
            {},
            {"sound": good["text"]},
            good | {"image": wide},
            good | {"text": wide},
            self.content(features, 1, 2),
        ):
            with pytest.raises(DataError):
                recommender.add_items(one, wrong)
        with pytest.raises(DataError, match="no column 'item_id'"):
            recommender.add_items(pd.DataFrame({"id": ["a"]}), good)
        pd.testing.assert_frame_equal(recommender.recommend(["u00"], k=99), before)
        assert {len(x.values) for x in recommender.features.values()} == {16}

    def test_items_may_lack_modalities(
        self, recommender: Recommender, features: dict[str, Feature]
    ) -> None:
        text = self.content(features, 12, 13)["text"]
        recommender.add_items(pd.DataFrame({"item_id": ["a", "b"]}), {"text": text})
        assert recommender.features["image"].present[-2:].tolist() == [False, False]
        nothing = Feature(np.zeros((1, 6), np.float32), np.zeros(1, bool))
        recommender.add_items(pd.DataFrame({"item_id": ["c"]}), {"text": nothing})
        for user in ("u00", "nobody"):
            with pytest.warns(UserWarning, match="neither a train row nor content.*'c': their"):
                found = recommender.recommend([user], k=99)
            assert found.item_id.iloc[-1] == "c"  # nothing is known, so it has no cold shift
        assert recommender.calibration.cold_shift > 0
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            recommender.recommend(["u00"], k=5)

    def test_no_items_at_all(self, recommender: Recommender, features: dict[str, Feature]) -> None:
        recommender.add_items(pd.DataFrame({"item_id": []}), self.content(features))
        assert len(recommender.items) == len(recommender.warm) == 16

    def test_new_columns_and_missing_ones(
        self, recommender: Recommender, features: dict[str, Feature], tmp_path: Path
    ) -> None:
        new = pd.DataFrame({"item_id": ["a"], "price": ["a few"], "colour": ["red"]})
        recommender.add_items(new, self.content(features, 12))
        recommender.save_pretrained(tmp_path / "art")
        loaded = Recommender.from_pretrained(tmp_path / "art")
        assert loaded.items.set_index("item_id").colour["a"] == "red"
        assert loaded.items.set_index("item_id").price["a"] == "a few"

    def test_of_a_recommender_that_keeps_no_content(
        self, make: Make, features: dict[str, Feature]
    ) -> None:
        recommender = make("kernel_ridge")
        recommender.features = {}
        recommender.add_items(pd.DataFrame({"item_id": ["a"]}), self.content(features, 12))
        found = recommender.recommend(["u01"], k=99).set_index("item_id").score
        assert found["a"] == pytest.approx(found["i12"], rel=1e-5)


class TestAudience:
    def test_users_are_calibrated_alike(self, recommender: Recommender) -> None:
        before = recommender.audience(["i12"], k=23)
        plain = recommender.calibration
        recommender.calibration = replace(plain, usual_history=20.0, scale_power=-2, shift_slope=9)
        pd.testing.assert_frame_equal(recommender.audience(["i12"], k=23), before)

    def test_ranks_users_by_their_score_for_the_item(
        self, recommender: Recommender, catalog: Catalog
    ) -> None:
        found = recommender.audience(["i12", "i03"], k=5)
        assert found.columns.tolist() == ["item_id", "user_id", "rank", "score"]
        scores = recommender.score(catalog.matrix("train"), EVERYTHING)
        for item, own in found.groupby("item_id"):
            row = catalog.item_rows([item])[0]
            free = [
                u
                for u in range(23)  # u23 has no train row
                if item not in taken(catalog, str(catalog.user_ids[u]), "train", "valid")
            ]
            best = sorted(free, key=lambda u, row=row: -scores[u, row])[:5]  # type: ignore[misc]
            assert own.user_id.tolist() == catalog.user_ids[best].tolist()

    def test_leaves_out_owners_and_strangers(
        self, recommender: Recommender, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "BLOCK", 7)
        found = recommender.audience(["i12"], k=10**14)
        assert set(catalog.user_ids) - set(found.user_id) == {"u00", "u23"}

    def test_wrong_arguments(self, recommender: Recommender) -> None:
        with pytest.raises(DataError, match="unknown item ids"):
            recommender.audience(["i99"])
        with pytest.raises(ConfigError, match="items must be a list"):
            recommender.audience("i12")
        with pytest.raises(ConfigError, match="k must be at least 1"):
            recommender.audience(["i12"], k=0)
        assert recommender.audience([]).empty


class TestSimilarItems:
    def test_by_the_cosine_of_vectors(self, recommender: Recommender) -> None:
        vectors = recommender.model.item_vectors()
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        cosine = unit @ unit[13]
        best = [i for i in np.argsort(-cosine) if i != 13][:4]
        found = recommender.similar_items("i13", k=4)
        assert found.columns.tolist() == ["item_id", "rank", "score"]
        assert found.item_id.tolist() == recommender.item_ids[best].tolist()
        np.testing.assert_allclose(found.score, cosine[best], rtol=1e-4)
        assert len(recommender.similar_items("i13", k=10**14)) == 15

    def test_a_zero_vector_is_like_nothing(self, make: Make) -> None:
        ease = make("ease")
        assert ease.similar_items("i13").empty
        assert not set(ease.similar_items("i01", k=99).item_id) & set(COLD_IDS)

    def test_wrong_arguments(self, recommender: Recommender) -> None:
        with pytest.raises(DataError, match="unknown item ids"):
            recommender.similar_items("i99")
        with pytest.raises(ConfigError, match="k must be at least 1"):
            recommender.similar_items("i01", k=0)


def test_measured_values_become_plain_numbers(make: Make, tmp_path: Path) -> None:
    recommender = make("ease")
    again = Recommender(
        recommender.model,
        recommender.calibration,
        recommender.config,
        recommender.items,
        recommender.user_ids.tolist(),
        {"train": recommender.seen["train"]},
        {},
        measured={"valid": {"ndcg@20": np.float32(0.5)}},  # type: ignore[dict-item]
    )
    again.save_pretrained(tmp_path / "art")
    loaded = Recommender.from_pretrained(tmp_path / "art")
    assert loaded.measured == {"valid": {"ndcg@20": 0.5}}
    assert list(loaded.seen) == ["train"]


@pytest.mark.parametrize("k", [2.5, "3", None])
def test_k_must_be_a_whole_number(recommender: Recommender, k: object) -> None:
    for ask in (
        lambda: recommender.recommend(["u01"], k=k),
        lambda: recommender.fold_in(["i01"], k=k),
        lambda: recommender.audience(["i01"], k=k),
        lambda: recommender.similar_items("i01", k=k),
        lambda: recommender.explain("i01", k=k),
    ):
        with pytest.raises(ConfigError, match="k must be a whole number"):
            ask()
    assert len(recommender.recommend(["u01"], k=np.int64(3))) == 3


def test_one_text_is_no_list_of_ids(recommender: Recommender) -> None:
    with pytest.raises(ConfigError, match=r"history must be a list of ids \(got 'i01'\)"):
        recommender.fold_in("i01")
    with pytest.raises(ConfigError, match=r"history must be a list of ids \(got None\)"):
        recommender.fold_in(None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"history must be a list of ids \(got 'i02'\)"):
        recommender.explain("i01", history="i02")


def test_several_filters_must_all_hold(recommender: Recommender) -> None:
    filters = ["price < 9", lambda items: items["kind"] == "tea"]
    found = recommender.recommend(["u01"], k=99, exclude_seen=(), filter=filters)
    assert set(found["item_id"]) == {"i00", "i02", "i04", "i06", "i08"}


def test_an_audience_of_an_item_that_nothing_is_known_of_is_warned_of(make: Make) -> None:
    recommender = make("kernel_ridge")
    recommender.add_items(
        pd.DataFrame({"item_id": ["text only", "blank"]}),
        {"text": Feature(np.ones((2, 6), np.float32) * [[1], [0]], np.array([True, False]))},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recommender.audience(["i01", "text only"])
    with pytest.warns(UserWarning, match="1 items have neither a train row nor content.*'blank'"):
        recommender.audience(["i01", "text only", "blank"])
    for name in ("ease", "bm3"):  # neither places cold items, though one reads content
        with pytest.warns(UserWarning, match="1 items have neither.*'i13'"):
            make(name).audience(["i01", "i13"])


def test_an_item_that_heard_its_users_is_not_without_anything(make: Make, catalog: Catalog) -> None:
    recommender = make("collective")
    blank = Feature(np.zeros((1, 6), np.float32), np.zeros(1, bool))
    recommender.add_items(pd.DataFrame({"item_id": ["blank"]}), {"text": blank})
    taken = sp.lil_matrix((len(recommender.user_ids), 17), dtype=np.float32)
    taken[0, 16] = taken[1, 16] = 1
    recommender.model.reveal(recommender.seen["train"], taken.tocsr())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = recommender.recommend(["u02"], k=99, exclude_seen=())
    assert found.set_index("item_id").score["blank"] > -10


@pytest.mark.parametrize("name", ["ease", "bpr", "popularity"])
def test_a_model_of_interactions_alone_ranks_cold_items_last(make: Make, name: str) -> None:
    recommender = make(name)
    found = recommender.recommend("all", k=99)
    cold = found["item_id"].isin(recommender.item_ids[~recommender.warm])
    worst_warm = found[~cold].groupby("user_id")["rank"].max()
    best_cold = found[cold].groupby("user_id")["rank"].min()
    assert cold.any()
    assert (worst_warm < best_cold.reindex(worst_warm.index, fill_value=1000)).all()
