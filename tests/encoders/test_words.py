"""Words of texts: the vocabulary, the weights against scikit-learn, and what is absent."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from mmalign.encoders import AttributeEncoder
from mmalign.encoders.words import Words, encode_words, learn_words

WORDS = st.sampled_from(["tea", "cup", "red", "Blue", "1995", "é", "a"])
TEXTS = st.lists(
    st.one_of(st.none(), st.lists(WORDS, max_size=6).map(" ".join)), min_size=1, max_size=12
)


def test_words_of_one_text_and_of_most_texts_are_left_out() -> None:
    texts = ["the tea", "the tea, the cup", "the rest", "the end", "the sea", "the tree", "the bee"]
    assert learn_words(texts, 10).words == ("tea",)


def test_texts_without_words_do_not_count() -> None:
    texts = ["the tea", "the tea", "the end", *(f"x{i}" for i in range(4))]
    learned = learn_words([*texts, None, "", "  ", " \n"], 10)
    assert learned == learn_words(texts, 10)
    assert learned.words == ("tea",)  # in 2 of 7; "the" is in 3 of 7, which of 11 would be few


def test_the_most_frequent_words_stay_and_ties_go_by_the_alphabet() -> None:
    texts = ["b c", "b c", "a b", "a", *(f"x{i}" for i in range(20))]
    assert learn_words(texts, 2).words == ("a", "b")


@given(TEXTS)
def test_values_are_those_of_scikit_learn(texts: list[str | None]) -> None:
    learned = learn_words(texts, 100)
    feature = encode_words(texts, learned)
    assert feature.values.shape == (len(texts), learned.dim)
    if not learned.words:
        assert not feature.present.any()
        return
    known = [text for text in texts if text]
    oracle = TfidfVectorizer(
        vocabulary=list(learned.words), sublinear_tf=True, token_pattern=r"\w+"
    ).fit(known)
    expected = oracle.transform([text or "" for text in texts]).toarray()
    np.testing.assert_allclose(feature.values, expected, atol=1e-6)
    assert feature.present.tolist() == expected.any(axis=1).tolist()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("हिन्दी में रसोई", ["हिन्दी", "में", "रसोई"]),
        ("鶏の唐揚げ", ["唐揚", "揚げ", "の唐", "鶏の"]),
        ("抹茶 latte 50g", ["50g", "latte", "抹茶"]),
        ("抹茶latte", ["latte", "抹茶"]),
        ("茶", ["茶"]),
        ("ผัดไทย", ["ดไ", "ทย", "ผั", "ัด", "ไท"]),
        ("cafe\u0301, Stra\u00dfe_7", ["cafe\u0301", "straße_7"]),
    ],
)
def test_words_of_other_scripts(text: str, words: list[str]) -> None:
    others = [f"other{i}" for i in range(8)]
    assert sorted(learn_words([text, text, *others], 99).words) == sorted(words)


def test_a_repeated_word_counts_with_the_logarithm() -> None:
    learned = Words(("cat", "dog"), (1.0, 1.0))
    row = encode_words(["cat cat dog"], learned).values[0]
    assert row[0] / row[1] == pytest.approx(1 + np.log(2))


def test_an_attribute_of_words_learns_from_fitted_rows_only_and_survives_json() -> None:
    texts = ["red tea", "red cup", None, *(f"word{i}" for i in range(9)), "blue sea", "blue sky"]
    encoder = AttributeEncoder({"plot": "words"}).fit({"plot": texts}, range(12))
    feature = encoder.transform({"plot": texts})["plot"]
    assert feature.values.shape == (14, 1)  # "red": no cold row shapes the vocabulary
    assert np.flatnonzero(feature.present).tolist() == [0, 1]
    again = AttributeEncoder.from_dict(encoder.to_dict()).transform({"plot": texts})["plot"]
    np.testing.assert_array_equal(again.values, feature.values)
