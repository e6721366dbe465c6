from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from mmalign.data.catalog import AttributeConfig, Catalog, DataConfig
from mmalign.encoders import AttributeEncoder
from mmalign.encoders.image import ImageEncoder
from mmalign.errors import DataError
from mmalign.features import build_features
from mmalign.features.build import BuildReport, Problem
from mmalign.interfaces import Feature

CONFIG = DataConfig(
    text=("title",),
    image="image",
    attributes={
        "year": AttributeConfig("number", column="title", pattern=r"\((\d{4})\)"),
        "price": AttributeConfig("number"),
        "released": AttributeConfig("date"),
        "tags": AttributeConfig("multi"),
    },
)


@pytest.fixture
def catalog(tmp_path) -> Catalog:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    (tmp_path / "good.png").write_bytes(buffer.getvalue())
    (tmp_path / "cut.png").write_bytes(buffer.getvalue()[:200])
    items = pd.DataFrame(
        {
            "item_id": ["a", "b", "c", "d"],
            "title": ["Tea (1990)", "Cake (2000)", "Cup (2010)", None],
            "image": ["good.png", "cut.png", "gone.png", None],
            "price": [1.0, 3.0, np.inf, None],
            "released": ["1990-05-01", None, "never", "2001"],
            "tags": ["x|y", "y", "z", None],
        }
    )
    log = pd.DataFrame(
        {
            "user_id": ["u", "u", "u"],
            "item_id": ["a", "b", "c"],
            "split": ["train", "train", "test"],
        }
    )
    return Catalog.from_pandas(items, log, config=CONFIG, root=tmp_path)


@pytest.fixture
def image_encoder() -> ImageEncoder:
    def transform(image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.asarray(image.resize((4, 4)), np.float32)).permute(2, 0, 1)

    return ImageEncoder(torch.nn.Flatten(), transform, torch.device("cpu"), fingerprint="i")


def attributes() -> AttributeEncoder:
    kinds = {"year": "number", "price": "number", "released": "date", "tags": "multi"}
    return AttributeEncoder(kinds)


def test_all_modalities_counts_and_problems(catalog, hash_encoder, image_encoder, tmp_path):
    encoders = {"text": hash_encoder(), "image": image_encoder}
    features, report = build_features(
        catalog, encoders, attributes(), tmp_path / "cache", progress=False
    )
    assert list(features) == ["text", "image", "year", "price", "released", "tags"]
    assert features["text"].present.tolist() == [True, True, True, False]
    assert features["image"].present.tolist() == [True, False, False, False]
    assert features["year"].present.tolist() == [True, True, True, False]
    assert features["price"].present.tolist() == [True, True, False, False]
    assert features["released"].present.tolist() == [True, False, False, True]
    # Item c is cold: its label z was never learned.
    assert features["tags"].values.tolist() == [[1, 1], [0, 1], [0, 0], [0, 0]]
    for feature in features.values():
        assert not feature.values[~feature.present].any()
    counts = {
        name: (m.encoded, m.cached, m.absent, m.broken) for name, m in report.modalities.items()
    }
    assert counts == {
        "text": (3, 0, 1, 0),
        "image": (1, 0, 1, 2),
        "year": (3, 0, 1, 0),
        "price": (2, 0, 2, 0),  # the catalogue itself takes infinity for missing
        "released": (2, 0, 2, 0),  # and so it does a date that cannot be read
        "tags": (2, 0, 2, 0),
    }
    found = {(p.modality, p.item_id): p.reason for p in report.problems}
    assert set(found) == {("image", "b"), ("image", "c")}
    assert "file not found" in found["image", "c"]
    lines = report.lines()
    assert lines[0].startswith("text: 3 encoded in")
    assert "3 truncated" in lines[0]
    assert any("image of item c: file not found" in line for line in lines)
    assert json.loads(json.dumps(report.to_dict()))["modalities"]["image"]["broken"] == 2


def test_a_further_reading_sees_a_column_whole(catalog, hash_encoder, tmp_path):
    encoder = hash_encoder()
    encoders = dict.fromkeys(["text", "text.title", "text.title@fame", "text@more"], encoder)
    features, _ = build_features(catalog, encoders, None, tmp_path / "c", progress=False)
    for name, texts in {
        "text.title": ["Tea", "Cake", "Cup"],
        "text.title@fame": ["Tea (1990)", "Cake (2000)", "Cup (2010)"],
        "text@more": ["Tea (1990)", "Cake (2000)", "Cup (2010)"],
    }.items():
        assert (features[name].values[:3] == encoder.encode(texts).values).all(), name


def test_a_second_build_comes_from_the_cache(catalog, hash_encoder, tmp_path):
    first, _ = build_features(catalog, {"text": hash_encoder()}, None, tmp_path / "c", False)
    encoder = hash_encoder()
    second, report = build_features(catalog, {"text": encoder}, None, tmp_path / "c", False)
    assert encoder.encoded == []
    assert report.modalities["text"].cached == 3
    assert report.modalities["text"].rate == 0
    np.testing.assert_array_equal(first["text"].values, second["text"].values)


def test_attributes_are_fitted_on_warm_items_only(catalog, tmp_path):
    seen = {}

    class Spy(AttributeEncoder):
        def fit(self, columns, rows):
            seen["rows"] = np.asarray(rows).tolist()
            return super().fit(columns, rows)

    build_features(catalog, {}, Spy({"year": "number"}), tmp_path / "c", False)
    assert seen["rows"] == [True, True, False, False]


def test_the_bar_is_drawn_on_standard_error(catalog, hash_encoder, tmp_path, capsys):
    build_features(catalog, {"text": hash_encoder()}, None, tmp_path / "c", progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "encoding text" in shown.err
    assert "3/3" in shown.err


def test_a_damaged_shard_shows_in_the_report(catalog, hash_encoder, tmp_path):
    build_features(catalog, {"text": hash_encoder()}, None, tmp_path / "c", False)
    next((tmp_path / "c").rglob("*.safetensors")).write_bytes(b"")
    _, report = build_features(catalog, {"text": hash_encoder()}, None, tmp_path / "c", False)
    assert "damaged cache shard" in report.notices[0]
    assert any("damaged cache shard" in line for line in report.lines())


def test_an_encoder_of_another_modality_is_refused(catalog, hash_encoder, tmp_path):
    with pytest.raises(DataError, match="modality 'image' cannot be encoded"):
        build_features(catalog, {"image": hash_encoder("text")}, None, tmp_path, False)
    with pytest.raises(DataError, match="modality 'audio'"):
        build_features(catalog, {"audio": hash_encoder("audio")}, None, tmp_path, False)


def test_a_terminal_is_told_of_the_first_ten_problems():
    problems = tuple(Problem("image", f"i{n}", "file not found") for n in range(12))
    lines = BuildReport({}, problems, ()).lines()
    assert lines[0] == "image of item i0: file not found"
    assert lines[9:] == ["image of item i9: file not found", "and 2 more items like these"]
    assert len(BuildReport({}, problems[:10], ()).lines()) == 10


def test_content_that_came_encoded_is_taken_as_it_is(catalog, hash_encoder, tmp_path):
    given = Feature(np.eye(4, dtype=np.float32), np.array([True, True, True, False]))
    catalog = replace(catalog, features={"image": given})
    features, report = build_features(catalog, {"text": hash_encoder()}, None, tmp_path, False)
    assert features["image"] is given
    assert features["text"].present.sum() == 3
    assert report.notices == ("image: came encoded, for 75.0% of the items",)
