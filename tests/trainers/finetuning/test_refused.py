"""Tuning that the system or the arithmetic stops ends in one line."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace

import pytest
from lightning.pytorch import Callback

from mmalign.errors import TrainingError
from mmalign.trainers.finetune import finetune


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
