from __future__ import annotations

import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from mmalign.errors import DataError, TrainingError
from mmalign.trainers.finetuning import views
from mmalign.trainers.finetuning.views import Views


@pytest.fixture
def make(shop, towers, tmp_path):
    def views(values=None, count=3, seed=0, name="a"):
        values = list(shop.items["image"]) if values is None else values
        rows = np.arange(0, 20)
        folder = tmp_path / "views"
        tower = towers["image"]
        return Views(
            tower, values, rows, count=count, seed=seed, folder=folder, name=name, progress=False
        )

    return views


def test_a_view_is_what_the_frozen_part_makes_of_the_item(make, shop, towers):
    values = list(shop.items["image"])
    rows = np.asarray([7, 3, 7])
    batch = make().collate(rows)
    assert batch.kept == [0, 1, 2]
    whole = towers["image"](
        towers["image"].collate([values[r] for r in rows], training=False).inputs
    )
    torch.testing.assert_close(towers["image"](batch.inputs), whole, atol=1e-2, rtol=1e-2)


def test_views_are_drawn_by_the_global_generator(make, towers, monkeypatch):
    def noisy(values, *, training):
        batch = plain(values, training=training)
        return type(batch)(batch.inputs + torch.rand_like(batch.inputs), batch.kept)

    plain = towers["image"].collate
    monkeypatch.setattr(towers["image"], "collate", noisy)
    views = make()
    seen = set()
    for seed in range(20):
        torch.manual_seed(seed)
        first = views.collate(np.asarray([5])).inputs["hidden"]
        torch.manual_seed(seed)
        assert torch.equal(first, views.collate(np.asarray([5])).inputs["hidden"])
        seen.add(first.numpy().tobytes())
    assert len(seen) == 3


def test_broken_and_missing_pictures_are_left_out_alone(make, shop):
    values = list(shop.items["image"])
    values[2], values[4] = b"broken", None
    for _ in range(2):  # the second finds the files of the first
        batch = make(values).collate(np.asarray([1, 2, 3]))
        assert batch.kept == [0, 2]
        assert list(batch.problems) == [1]
    assert make(values).collate(np.asarray([2])).inputs is None


def test_files_are_found_again_replaced_and_removed(make, tmp_path, towers, monkeypatch):
    make()
    calls = []
    lower = towers["image"].lower
    monkeypatch.setattr(towers["image"], "lower", lambda x: calls.append(1) or lower(x))
    make()
    assert not calls
    views = make(name="b")
    assert calls
    assert {path.name[0] for path in (tmp_path / "views").iterdir()} == {"b"}
    views.remove()
    assert not (tmp_path / "views").exists()


def test_a_view_that_was_cut_short_is_written_again(make, tmp_path, towers, monkeypatch):
    def killed(inputs):
        raise KeyboardInterrupt

    lower = towers["image"].lower
    monkeypatch.setattr(towers["image"], "lower", killed)
    with pytest.raises(KeyboardInterrupt):
        make()
    assert not list((tmp_path / "views").iterdir())
    monkeypatch.setattr(towers["image"], "lower", lower)
    assert make().collate(np.asarray([0])).kept == [0]


def test_what_half_precision_cannot_hold_is_refused(make, towers, monkeypatch):
    monkeypatch.setattr(towers["image"], "lower", lambda inputs: inputs * 1e6)
    with pytest.raises(TrainingError, match=r"too large.*views: 0"):
        make()


def test_no_picture_at_all_is_one_line(make, shop):
    with pytest.raises(DataError, match=r"not one picture.*no picture"):
        make([b"broken"] * len(shop.items))


def test_a_full_disk_is_one_line(make, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"No space left.*views"):
        make()
    assert not list((tmp_path / "views").iterdir())


WRITES = """
import sys
from pathlib import Path

import numpy as np
import torch

from mmalign.errors import DataError
from mmalign.interfaces import TowerBatch
from mmalign.trainers.finetuning.views import Views

class Tower:
    runs = 0
    def collate(self, values, *, training):
        return TowerBatch(torch.zeros(len(values), 1000), list(range(len(values))))
    def lower(self, inputs):
        Tower.runs += 1
        return inputs

try:
    rows = np.arange(1000)
    Views(Tower(), ["a"] * 1000, rows, count=1, seed=0, folder=Path(sys.argv[1]), name="a")
except DataError as error:
    sys.exit(f"{Tower.runs} run: {error}")
"""


def test_a_disk_that_is_full_does_not_kill_the_process(small_disk):
    """In a process of its own, which the system would kill by SIGBUS."""
    folder = small_disk(1_000_000) / "views"  # half of what is to be kept
    done = subprocess.run(
        [sys.executable, "-c", WRITES, str(folder)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert re.search(r"^1 run: could not keep views .*No space left.*free space", done.stderr, re.M)
    assert not list(folder.iterdir())


def test_pictures_that_cannot_be_read_may_fill_a_block(make, shop, monkeypatch):
    monkeypatch.setattr(views, "BATCH_SIZE", 4)
    values = list(shop.items["image"])
    values[:4], values[12:] = [b"broken"] * 4, [b"broken"] * len(values[12:])
    for _ in range(2):
        batch = make(values).collate(np.arange(20))
        assert batch.kept == list(range(4, 12))
        torch.testing.assert_close(
            batch.inputs["hidden"],
            torch.from_numpy(np.stack([np.frombuffer(v, np.float32) for v in values[4:12]])),
            atol=1e-3,
            rtol=1e-3,
        )


def test_what_a_killed_run_left_unfinished_is_removed(make, tmp_path):
    folder = tmp_path / "views"
    folder.mkdir()
    old, young = folder / "a-0.dead.tmp", folder / "a-0.beef.tmp"
    for path in (old, young):
        path.write_bytes(b"torn")
    os.utime(old, (0, 0))
    make()
    assert not old.exists()
    assert young.exists()  # another process may be at it
