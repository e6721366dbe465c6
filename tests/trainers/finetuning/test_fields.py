from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmalign.data.catalog import Catalog, DataConfig
from mmalign.errors import ConfigError
from mmalign.trainers.finetuning.fields import FieldText

CELLS = st.lists(st.one_of(st.none(), st.text("abc ", min_size=1)), min_size=3, max_size=3)


def catalog(titles, brands):
    items = pd.DataFrame({"item_id": range(len(titles)), "title": titles, "brand": brands})
    return Catalog.from_pandas(items, None, config=DataConfig(text=("title", "brand")))


@given(CELLS, CELLS)
def test_without_a_template_the_text_is_that_of_the_catalogue(titles, brands):
    shop = catalog(titles, brands)
    text = FieldText.of(shop, None, 0.0, 0)
    assert text.plain() == shop.texts()
    assert [text.render(row, 5) for row in range(3)] == shop.texts()


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{title} by {brand}", ["Tea by Leaf", "Mug by", None]),
        ("{title}[ by {brand}]", ["Tea by Leaf", "Mug", None]),
        ("[{brand}: ]{title}", ["Leaf: Tea", "Mug", None]),
        ("photo of {title}", ["photo of Tea", "photo of Mug", None]),
    ],
)
def test_a_template_is_filled(template, expected):
    shop = catalog(["Tea", "Mug", None], ["Leaf", None, None])
    assert FieldText.of(shop, template, 0.0, 0).plain() == expected


def test_fields_are_left_out_by_chance_but_never_all():
    shop = catalog(["tea"] * 400, ["leaf"] * 400)
    found = [FieldText.of(shop, None, 0.5, 0).render(row, 0) for row in range(400)]
    shares = [found.count(text) / 400 for text in ("tea. leaf", "tea", "leaf")]
    # Both stay with a quarter, and when both would go one is kept.
    assert shares == pytest.approx([0.25, 0.375, 0.375], abs=0.08)
    assert sum(shares) == pytest.approx(1)


def test_what_is_left_out_changes_by_epoch_and_seed_alone():
    shop = catalog(["tea"] * 50, ["leaf"] * 50)

    def rendered(seed, epoch):
        text = FieldText.of(shop, None, 0.5, seed)
        return [text.render(row, epoch) for row in range(50)]

    assert rendered(0, 1) == rendered(0, 1)
    assert rendered(0, 1) != rendered(0, 2)
    assert rendered(0, 1) != rendered(1, 1)


def test_an_item_of_one_field_keeps_it():
    text = FieldText.of(catalog(["tea"], [None]), None, 0.9, 0)
    assert {text.render(0, epoch) for epoch in range(20)} == {"tea"}


def test_a_template_of_dropped_fields_falls_back():
    text = FieldText.of(catalog(["tea"], ["leaf"]), "{title}", 0.9, 0)
    assert {text.render(0, epoch) for epoch in range(20)} == {"tea"}


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{titel}", "did you mean 'title'"),
        ("a thing", "names no column"),
        ("{title}[ by {brand}", "a bracket without its partner"),
        ("{title}{", "a bracket without its partner"),
        ("{title} [in {brand]", "a bracket without its partner"),
        ("[[{title}] by {brand}]", "or one inside another"),
    ],
)
def test_a_wrong_template_is_refused(template, message):
    with pytest.raises(ConfigError, match=message):
        FieldText.of(catalog(["tea"], ["leaf"]), template, 0.0, 0)


def test_an_unknown_column_of_a_pair_is_refused():
    with pytest.raises(ConfigError, match="did you mean 'brand'"):
        FieldText.of(catalog(["tea"], ["leaf"]), None, 0.0, 0).column("brant")


def test_columns_that_the_template_does_not_name_do_not_count():
    items = pd.DataFrame({"item_id": range(2000), "a": "tea", "b": "leaf", "c": "more"})
    shop = Catalog.from_pandas(items, None, config=DataConfig(text=("a", "b", "c")))
    text = FieldText.of(shop, "[{a}][ {b}]", 0.5, 0)
    found = [text.render(row, 0) for row in range(2000)]
    shares = [found.count(text) / 2000 for text in ("tea leaf", "tea", "leaf")]
    assert shares == pytest.approx([0.25, 0.375, 0.375], abs=0.04)
