"""The README of an artefact."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import yaml

from mmalign.models import MODELS
from mmalign.recommender import Recommender, model_card

Make = Callable[[str], Recommender]


@pytest.mark.parametrize("name", MODELS)
def test_front_matter_and_settings_are_yaml(make: Make, name: str) -> None:
    card = model_card.render(make(name))
    empty, front, body = card.split("---\n", 2)
    assert empty == ""
    assert yaml.safe_load(front) == {
        "library_name": "mmalign",
        "tags": ["recommendation", "cold-start", "multimodal"],
    }
    settings = yaml.safe_load(body.split("```yaml\n")[1].split("```")[0])
    assert settings["model"]["name"] == name
    assert settings["calibration"]["cold_shift"] == 0.1
    assert f"# mmalign recommender: {name}" in body
    assert "Knows 24 users and 16 items, 4 of them by content alone." in body


def test_the_measured_table(recommender: Recommender) -> None:
    recommender.measured = {
        "valid, warm": {"ndcg@20": 0.12345, "recall@20": 0.5},
        "valid, cold": {"ndcg@20": math.nan, "coverage": 0.75},
    }
    table = model_card.render(recommender).split("## Measured\n\n")[1].split("\n\n")[0]
    assert table.splitlines() == [
        "| slice | ndcg@20 | recall@20 | coverage |",
        "| --- | ---: | ---: | ---: |",
        "| valid, warm | 0.1235 | 0.5000 |  |",
        "| valid, cold | - |  | 0.7500 |",
    ]


def test_nothing_measured(recommender: Recommender) -> None:
    recommender.measured = {}
    assert "Nothing: there was no valid split" in model_card.render(recommender)


def test_the_example_is_python_and_names_nobody(recommender: Recommender) -> None:
    recommender.user_ids[0] = "somebody@home"
    card = model_card.render(recommender)
    compile(card.split("```python\n")[1].split("```")[0], "card", "exec")
    assert "somebody" not in card


def test_content_is_named(make: Make) -> None:
    assert "Content: image, text." in model_card.render(make("kernel_ridge"))
    assert "Content: none." in model_card.render(make("ease"))
