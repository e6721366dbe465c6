"""Tuning that the system or the arithmetic stops ends in one line."""

from __future__ import annotations

import copy
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback

from mmalign.errors import ConfigError, TrainingError
from mmalign.finetuning import FinetuneConfig, TowerConfig
from mmalign.trainers.finetune import finetune
from mmalign.trainers.finetuning.module import FinetuneModule
from mmalign.trainers.resume import read_checkpoint


def test_a_full_disk_leaves_the_last_checkpoint_to_go_on_from(
    shop, towers, told, small_disk, tmp_path
):
    class Full(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 2:
                filler.write_bytes(bytes(shutil.disk_usage(folder).free))

    folder = small_disk(8_000_000)
    filler, last = folder / "filler", folder / "run" / "checkpoints" / "last.ckpt"
    again, given = copy.deepcopy(towers), {"folder": folder / "run", "progress": False}
    with pytest.raises(TrainingError, match=rf"checkpoint .*No space.*free space.*path {last}$"):
        finetune(told(3), shop, towers, callbacks=[Full()], **given)
    filler.unlink()
    resumed = finetune(told(3), shop, again, resume=str(last), **given)
    assert [p.epoch for p in resumed.curve if p.name == "train/loss"] == [0, 1, 2]


def test_a_rate_that_no_number_can_hold_is_one_line(shop, towers, told, tmp_path):
    config = told(1)
    text = replace(config.finetune.text, learning_rate=1e39)
    config = replace(config, finetune=replace(config.finetune, text=text))
    with pytest.raises(TrainingError, match=r"too large for a number .*lower learning_rate"):
        finetune(config, shop, towers, folder=tmp_path, progress=False)


def test_what_the_end_of_a_broken_run_says_can_be_done(shop, towers, told, tmp_path, monkeypatch):
    """The command of the message leaves the best weights in the towers and trains nothing."""
    plain = FinetuneModule._step

    def breaking(module):
        plain(module)
        if module.current_epoch == 4 and module.trainer.is_last_batch:
            next(module.towers["text"].parameters()).data[0] = float("nan")

    given = {"folder": tmp_path, "progress": False}
    with monkeypatch.context() as patched:
        patched.setattr(FinetuneModule, "_step", breaking)
        with pytest.raises(TrainingError, match="not finite in epoch 5") as caught:
            finetune(told(9), shop, copy.deepcopy(towers), **given)
    said = re.search(r"--ckpt_path (\S+) --trainer.max_epochs (\d+) writes", str(caught.value))
    result = finetune(told(int(said[2])), shop, towers, resume=said[1], **given)
    assert not [p for p in result.curve if p.name == "train/loss" and p.epoch > 3]
    best = read_checkpoint(str(tmp_path / "checkpoints" / "best.ckpt"))["state_dict"]
    for modality, tower in towers.items():
        for name, value in tower.state_dict().items():
            assert torch.equal(value, best[f"towers.{modality}.{name}"])


def test_numbers_that_break_before_anything_is_saved(shop, towers, told, tmp_path, monkeypatch):
    def breaking(module):
        next(module.towers["text"].parameters()).data[0] = float("nan")

    monkeypatch.setattr(FinetuneModule, "_step", breaking)
    what = r"epoch 1 .*: nothing was saved yet, so start anew with a lower learning_rate"
    with pytest.raises(TrainingError, match=what):
        finetune(told(1), shop, towers, folder=tmp_path, progress=False)


def test_no_epochs_are_refused(shop, towers, told, tmp_path):
    with pytest.raises(ConfigError, match=r"no epoch would train .*max_epochs=0"):
        finetune(told(0), shop, towers, folder=tmp_path, progress=False)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": 0.005}, r"finetune\.temperature must be in \[0\.01, 1\.0\] .*got 0\.005"),
        (
            {"temperature": 1.5, "loss": "siglip"},
            r"in \[0\.001, 1\.0\] with finetune\.loss: siglip",
        ),
        ({"temperature": 0.0}, r"finetune\.temperature must be in"),
        ({"image": TowerConfig(max_length=8)}, r"no max_length .*finetune\.text\.max_length"),
        (
            {"objectives": {"text_pairs": 1.0}, "text_pairs": ("title", "title")},
            "two different columns",
        ),
    ],
)
def test_values_that_cannot_work_are_named_at_once(values, message):
    with pytest.raises(ConfigError, match=message):
        FinetuneConfig(**values)


@pytest.mark.parametrize("column", ["title", "image"])
def test_a_run_does_not_go_on_with_other_content(shop, towers, told, tmp_path, column):
    items, row = shop.items.copy(), 0
    row = np.flatnonzero(shop.warm)[0]
    items.loc[[row], column] = "tea" if column == "title" else [items["image"][row][:-4] + bytes(4)]
    changed = type(shop).from_pandas(items, shop.interactions, config=shop.config)
    given = {"folder": tmp_path, "progress": False}
    finetune(told(1), shop, copy.deepcopy(towers), **given)
    last = str(tmp_path / "checkpoints" / "last.ckpt")
    with pytest.raises(TrainingError, match="other train items"):
        finetune(told(2), changed, towers, resume=last, **given)
    finetune(told(2), shop, towers, resume=last, **given)


@pytest.mark.parametrize("objective", ["behaviour", "graph"])
def test_a_frozen_tower_has_no_part_in_what_users_take(
    shop, towers, told, tmp_path, monkeypatch, objective
):
    monkeypatch.setattr(towers["image"], "trainable", lambda: {"trunk": [], "projection": []})
    config = told(1, objectives={objective: 1.0})
    result = finetune(config, shop, towers, folder=tmp_path, progress=False)
    found = {p.name: p.value for p in result.curve}
    assert f"train/{objective}.image" not in found
    assert found["train/loss"] == found[f"train/{objective}.text"]


@pytest.mark.parametrize(("loss", "bias"), [("siglip", -3.0), ("clip", None)])
def test_a_bias_starts_where_it_is_told_to(shop, towers, told, tmp_path, loss, bias):
    config = told(1, loss=loss, bias=-3.0, temperature=1 / 90, learning_rate=1e-9)
    result = finetune(config, shop, towers, folder=tmp_path, progress=False)
    assert result.bias == (None if bias is None else pytest.approx(bias, abs=1e-4))
    assert result.temperature == pytest.approx(1 / 90, rel=1e-4)
