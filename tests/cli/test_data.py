from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest


def test_validate_prints_what_is_there(mmalign, house):
    shown = mmalign("validate", "--config", house.everything)
    assert shown.code == 0, shown.err
    lines = dict(line.split(maxsplit=1) for line in shown.out.splitlines())
    assert lines["users"].startswith("30 (1 without a train row)")
    assert lines["items"].startswith("40 (")
    assert "1 user-item pairs in several splits" in lines["leakage"]
    assert "image 85.0%" in lines["coverage"]


def test_validate_as_json(mmalign, house):
    found = json.loads(mmalign("validate", "--config", house.everything, "--json").out)
    assert found["ok"] is True
    assert found["counts"]["users"] == 30
    assert found["leakage"]["pairs"] == 1


def test_validate_strictly_fails_on_warnings(mmalign, house):
    shown = mmalign("validate", "--config", house.everything, "--strict")
    assert shown.code == 1
    assert "more than one split" in shown.error


def test_validate_fails_on_what_cannot_work(mmalign, house, shop):
    log = pd.read_csv(shop / "interactions.csv").assign(split="test")
    log.to_csv(shop / "interactions.csv", index=False)
    shown = mmalign("validate", "--config", house.everything, "--data.path", shop, "--json")
    assert shown.code == 1
    assert json.loads(shown.out)["ok"] is False
    assert "there are no train rows" in shown.error


def test_a_second_encoding_encodes_only_what_changed(mmalign, house, shop, tmp_path):
    arguments = ["--config", house.everything, "--data.path", shop, "--cache", tmp_path / "cache"]
    first = json.loads(mmalign("encode", *arguments, "--json").out)["modalities"]
    assert (first["text"]["encoded"], first["text"]["cached"]) == (35, 0)
    assert (first["image"]["encoded"], first["image"]["absent"]) == (34, 6)
    items = pd.read_csv(shop / "items.csv")
    items.loc[5, "title"] = "red red red"
    items.iloc[::-1].to_csv(shop / "items.csv", index=False)
    shown = mmalign("encode", *arguments)
    assert shown.code == 0
    assert shown.out == ""
    lines = {line.partition(":")[0]: line for line in shown.err.splitlines()}
    assert "text: 1 encoded" in lines["text"]
    assert "34 cached" in lines["text"]
    assert "image: 0 encoded" in lines["image"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--data.path", "nowhere"], 1, "data.path is no folder"),
        (["--data.path", "owner/nowhere"], 1, "owner/nowhere"),
        (["--encoders", "{}", "--data.text", "[title]"], 0, ""),
        (["--data.text", "[titel]"], 1, "did you mean 'title'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(mmalign, house, arguments, code, message):
    shown = mmalign("validate", "--config", house.attributes, *arguments)
    assert shown.code == code
    assert message == "" or message in shown.error


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--data.text", "[title]"], 2, "data.text is named but no encoder is"),
        (["--encoders.sound", "x"], 2, "unknown modality 'encoders.sound'"),
        (["--data.text", "[title]", "--encoders.text", "minilmm"], 1, "did you mean 'minilm'"),
        (["--cache", "{shop}/items.csv"], 0, ""),  # attributes alone need no cache
    ],
)
def test_what_is_wrong_with_encoders(mmalign, house, arguments, code, message):
    filled = [argument.format(shop=house.shop) for argument in arguments]
    shown = mmalign("encode", "--config", house.attributes, *filled)
    assert shown.code == code
    assert message == "" or message in shown.error


def test_validate_strictly_fits_the_model_and_looks_for_leaks(mmalign, house, monkeypatch):
    from mmalign.models import KernelRidge

    shown = mmalign("validate", "--config", house.attributes, "--strict", "--json")
    assert json.loads(shown.out)["leaks"] == []
    assert "leaks: none" in mmalign("validate", "--config", house.attributes, "--strict").out

    def leaky(self, data):
        self.warm = np.ones(len(data.warm), bool)
        self.kernel = self._new_kernel().fit(data.features, self.warm)
        self.content = self.kernel.transform(data.features)
        self.warm = data.warm

    monkeypatch.setattr(KernelRidge, "fit_content", leaky)
    shown = mmalign("validate", "--config", house.attributes, "--strict")
    assert shown.code == 1
    assert "leak: scores of cold items that stayed as they are move when the content" in shown.out
    assert "the content of other cold items becomes noise" in shown.error


def test_an_encoder_without_anything_to_encode_is_noted(mmalign, house):
    arguments = ["--config", house.attributes, "--encoders.text", house.text_encoder]
    shown = mmalign("encode", *arguments)
    assert shown.code == 0
    assert "warning: encoders.text is named but data.text is not: no text is read" in shown.err
    assert "warning" not in mmalign("encode", "--config", house.everything).err
    shown = mmalign("encode", "--config", house.everything, "--encoders.text.title", "mpnet")
    assert "encoders.text.title is named but kernel_ridge does not read that column" in shown.err


def test_a_split_that_is_told_and_not_used_is_noted(mmalign, house):
    shown = mmalign("validate", "--config", house.attributes, "--data.split.kind", "leave_last")
    assert "the log has a split column: data.split does nothing" in shown.err + shown.out
