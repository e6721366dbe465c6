from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from mmalign.errors import DataError
from mmalign.features import shelf as module
from mmalign.features.cache import FeatureCache
from mmalign.features.shards import write_shard

TEXTS = ["tea", None, "a red cup", "cake", "tea", "broken one", "blue"]


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.safetensors"))


def test_counts_and_rows(tmp_path, hash_encoder):
    encoder = hash_encoder()
    run = FeatureCache(tmp_path).encode(encoder, TEXTS)
    assert (run.encoded, run.cached, run.absent) == (5, 0, 1)
    assert run.problems == {5: "cannot be decoded"}
    assert run.feature.present.tolist() == [True, False, True, True, True, False, True]
    assert not run.feature.values[[1, 5]].any()
    np.testing.assert_array_equal(run.feature.values[0], run.feature.values[4])
    plain = hash_encoder().encode([TEXTS[i] for i in (0, 2, 3, 4, 6)])
    np.testing.assert_array_equal(run.feature.values[run.feature.present], plain.values)
    assert sorted(encoder.encoded) == ["a red cup", "blue", "broken one", "cake", "tea"]
    assert run.notes == {"truncated": 5}


def test_a_second_run_encodes_nothing_but_what_is_broken(tmp_path, hash_encoder):
    first = FeatureCache(tmp_path).encode(hash_encoder(), TEXTS)
    before = shards(tmp_path)
    encoder = hash_encoder()
    second = FeatureCache(tmp_path).encode(encoder, TEXTS)
    assert encoder.encoded == ["broken one"]
    assert (second.encoded, second.cached, second.absent) == (0, 5, 1)
    assert second.problems == first.problems
    np.testing.assert_array_equal(second.feature.values, first.feature.values)
    assert shards(tmp_path) == before


def test_only_new_and_changed_content_is_encoded(tmp_path, hash_encoder):
    FeatureCache(tmp_path).encode(hash_encoder(), ["tea", "cake", "cup"])
    encoder = hash_encoder()
    run = FeatureCache(tmp_path).encode(encoder, ["cup", "tea", "cake!", "new"])
    assert sorted(encoder.encoded) == ["cake!", "new"]
    assert (run.encoded, run.cached) == (2, 2)
    expected = hash_encoder().encode(["cup", "tea", "cake!", "new"]).values
    np.testing.assert_array_equal(run.feature.values, expected)


def test_another_fingerprint_encodes_all_and_keeps_both(tmp_path, hash_encoder):
    one = FeatureCache(tmp_path).encode(hash_encoder(fingerprint="f1"), ["tea", "cake"])
    encoder = hash_encoder(fingerprint="f2")
    two = FeatureCache(tmp_path).encode(encoder, ["tea", "cake"])
    assert len(encoder.encoded) == 2
    assert np.abs(one.feature.values - two.feature.values).max() > 0
    back = hash_encoder(fingerprint="f1")
    FeatureCache(tmp_path).encode(back, ["tea", "cake"])
    assert back.encoded == []


def test_files_are_known_by_content(tmp_path, hash_encoder):
    a, b, c = (tmp_path / name for name in ("a.jpg", "b.jpg", "c.jpg"))
    for path, data in ((a, b"one"), (b, b"two"), (c, b"one")):
        path.write_bytes(data)
    encoder = hash_encoder("image")
    run = FeatureCache(tmp_path / "cache").encode(encoder, [a, b, c, b"one", None])
    assert len(encoder.encoded) == 2
    assert run.encoded == 4
    a.rename(tmp_path / "renamed.jpg")
    b.write_bytes(b"new")
    again = hash_encoder("image")
    FeatureCache(tmp_path / "cache").encode(again, [tmp_path / "renamed.jpg", b, c])
    assert again.encoded == [b]


def test_a_missing_or_unreadable_file_is_reported_and_tried_again(tmp_path, hash_encoder):
    path = tmp_path / "late.jpg"
    cache = FeatureCache(tmp_path / "cache")
    run = cache.encode(hash_encoder("image"), [path, tmp_path, b"x"])
    assert run.problems[0] == f"file not found: {path}"
    assert "cannot be read" in run.problems[1]
    assert run.feature.present.tolist() == [False, False, True]
    assert (run.encoded, run.cached, run.absent) == (1, 0, 0)
    path.write_bytes(b"here now")
    assert cache.encode(hash_encoder("image"), [path]).encoded == 1


def test_shards_hold_no_more_rows_than_told(tmp_path, hash_encoder):
    FeatureCache(tmp_path, shard_rows=3).encode(hash_encoder(), [f"text {i}" for i in range(10)])
    assert len(shards(tmp_path)) == 4


def test_a_slow_encoder_writes_by_the_clock(tmp_path, hash_encoder, monkeypatch):
    monkeypatch.setattr(module, "_SHARD_SECONDS", -1.0)
    FeatureCache(tmp_path).encode(hash_encoder(), [f"text {i}" for i in range(32)])
    assert len(shards(tmp_path)) == 4  # one per call of four batches of two


def test_texts_go_from_long_to_short(tmp_path, hash_encoder):
    encoder = hash_encoder()
    FeatureCache(tmp_path).encode(encoder, ["x" * n for n in (3, 9, 1, 7)])
    assert [len(text) for text in encoder.encoded] == [9, 7, 3, 1]


def test_progress_adds_up(tmp_path, hash_encoder):
    steps: list[int] = []
    FeatureCache(tmp_path).encode(
        hash_encoder(),
        [f"text {i}" for i in range(19)],
        on_advance=steps.append,
    )
    assert sum(steps) == 19
    assert len(steps) == 3


@pytest.mark.parametrize("damage", ["cut", "empty", "changed", "words"])
def test_a_damaged_shard_is_dropped_with_a_notice_and_encoded_again(tmp_path, hash_encoder, damage):
    texts = [f"text {i}" for i in range(9)]
    whole = FeatureCache(tmp_path, shard_rows=3).encode(hash_encoder(), texts)
    victim = shards(tmp_path)[1]
    data = victim.read_bytes()
    victim.write_bytes(
        {
            "cut": data[:-7],
            "empty": b"",
            "changed": data[:-1] + bytes([data[-1] ^ 1]),
            "words": b"these are words",
        }[damage]
    )
    encoder = hash_encoder()
    run = FeatureCache(tmp_path, shard_rows=3).encode(encoder, texts)
    assert len(encoder.encoded) == 3
    assert (run.encoded, run.cached) == (3, 6)
    assert len(run.notices) == 1
    assert victim.name in run.notices[0]
    np.testing.assert_array_equal(run.feature.values, whole.feature.values)
    assert FeatureCache(tmp_path).encode(hash_encoder(), texts).notices == ()


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), FileNotFoundError(2)])
def test_a_shard_that_cannot_be_read_now_is_left_alone(tmp_path, hash_encoder, monkeypatch, error):
    texts = [f"text {i}" for i in range(9)]
    whole = FeatureCache(tmp_path, shard_rows=3).encode(hash_encoder(), texts)
    victim = shards(tmp_path)[1]

    def refuse(path, mode):
        if path == victim:
            raise error
        return open(path, mode)

    with monkeypatch.context() as patch:
        patch.setattr("mmalign.features.shards.open", refuse, raising=False)
        run = FeatureCache(tmp_path, shard_rows=3).encode(hash_encoder(), texts)
    assert run.encoded == 3
    np.testing.assert_array_equal(run.feature.values, whole.feature.values)
    said = [f"cannot read a cache shard, encoding again: {victim.name} (Permission denied)"]
    assert list(run.notices) == (said if isinstance(error, PermissionError) else [])
    assert victim.is_file()


def test_a_shard_that_goes_away_during_a_run_is_one_line(tmp_path, hash_encoder, monkeypatch):
    texts = [f"text {i}" for i in range(9)]
    FeatureCache(tmp_path, shard_rows=3).encode(hash_encoder(), texts)
    plain = module.Shelf.fill

    def fill(shelf, *arguments):
        shards(tmp_path)[1].unlink()
        return plain(shelf, *arguments)

    monkeypatch.setattr(module.Shelf, "fill", fill)
    with pytest.raises(DataError, match=r"was there before and cannot be read.*run the same again"):
        FeatureCache(tmp_path, shard_rows=3).encode(hash_encoder(), texts)


def test_nothing_to_encode(tmp_path, hash_encoder):
    run = FeatureCache(tmp_path).encode(hash_encoder(), [None, None])
    assert run.feature.values.shape == (2, 4)
    assert not run.feature.present.any()
    assert run.absent == 2
    assert FeatureCache(tmp_path).encode(hash_encoder(), []).feature.values.shape == (0, 4)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, hash_encoder):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot be written"):
        FeatureCache(tmp_path / "file" / "cache").encode(hash_encoder(), ["tea"])


def test_a_full_disk_is_one_line(tmp_path, hash_encoder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mmalign.features.shards.os.fsync", full)
    with pytest.raises(DataError, match="No space left on device"):
        FeatureCache(tmp_path).encode(hash_encoder(), ["tea"])


def test_leftovers_of_killed_runs_go_and_those_of_running_ones_stay(tmp_path, hash_encoder):
    folder = tmp_path / "f1"
    folder.mkdir()
    old, fresh = folder / "old.tmp", folder / "fresh.tmp"
    old.write_bytes(b"x")
    fresh.write_bytes(b"x")
    os.utime(old, (time.time() - 7200,) * 2)
    FeatureCache(tmp_path).encode(hash_encoder(), ["tea"])
    assert not old.exists()
    assert fresh.exists()


def test_runs_at_the_same_time_do_not_disturb_each_other(tmp_path, hash_encoder):
    texts = [f"text {i}" for i in range(40)]
    runs = []

    def work() -> None:
        runs.append(FeatureCache(tmp_path, shard_rows=4).encode(hash_encoder(), texts))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = hash_encoder().encode(texts).values
    assert len(runs) == 4
    for run in runs:
        np.testing.assert_array_equal(run.feature.values, expected)
    encoder = hash_encoder()
    last = FeatureCache(tmp_path).encode(encoder, texts)
    assert encoder.encoded == []
    assert last.cached == 40


SLOW_RUN = """
import importlib.util, sys, time
spec = importlib.util.spec_from_file_location("helper", sys.argv[1])
helper = importlib.util.module_from_spec(spec)
spec.loader.exec_module(helper)
from mmalign.features.cache import FeatureCache
from mmalign.features.shards import write_shard

class Slow(helper.HashEncoder):
    def encode(self, values):
        time.sleep(0.02)
        return super().encode(values)

print("ready", flush=True)
FeatureCache(sys.argv[2], shard_rows=4).encode(Slow(), [f"text {i}" for i in range(400)])
"""


def test_a_kill_at_any_moment_loses_and_doubles_nothing(tmp_path, hash_encoder):
    texts = [f"text {i}" for i in range(400)]
    script = tmp_path / "run.py"
    script.write_text(textwrap.dedent(SLOW_RUN))
    helper = Path(__file__).with_name("conftest.py")
    kept: list[int] = []
    for wait in (0.05, 0.2, 0.33):
        process = subprocess.Popen(
            [sys.executable, script, helper, tmp_path / "cache"], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(wait)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        kept.append(len(shards(tmp_path / "cache")))
    assert kept == sorted(kept)
    assert 0 < kept[-1] < 100, "the kills must hit the middle of a run"
    encoder = hash_encoder()
    run = FeatureCache(tmp_path / "cache", shard_rows=4).encode(encoder, texts)
    assert run.notices == ()
    assert run.cached == kept[-1] * 4
    assert len(encoder.encoded) == run.encoded == 400 - run.cached
    assert len(set(encoder.encoded)) == len(encoder.encoded)
    whole = FeatureCache(tmp_path / "other").encode(hash_encoder(), texts)
    np.testing.assert_array_equal(run.feature.values, whole.feature.values)
    np.testing.assert_array_equal(run.feature.present, whole.feature.present)
    assert len(shards(tmp_path / "cache")) == 100


def test_an_encoder_is_asked_for_its_width_only_when_it_has_work(tmp_path, hash_encoder):
    FeatureCache(tmp_path).encode(hash_encoder(), ["tea", "cake"])

    class Unloaded:
        modality, fingerprint, batch_size = "text", "f1", 2

    run = FeatureCache(tmp_path).encode(Unloaded(), ["cake", None])
    assert (run.cached, run.absent, run.feature.values.shape) == (1, 1, (2, 4))
    with pytest.raises(AttributeError, match="dim"):
        FeatureCache(tmp_path).encode(Unloaded(), ["new"])


def test_a_width_that_cannot_be_is_refused_before_anything_is_encoded(tmp_path, hash_encoder):
    FeatureCache(tmp_path).encode(hash_encoder(), ["tea"])
    wide = hash_encoder()
    wide.dim = 5
    with pytest.raises(DataError, match=r"must have length 5 \(got '4 in .*delete this folder"):
        FeatureCache(tmp_path).encode(wide, ["new"])
    assert wide.encoded == []


def test_a_shard_of_another_width_than_the_others_is_dropped(tmp_path, hash_encoder):
    FeatureCache(tmp_path).encode(hash_encoder(), ["tea"])
    first = shards(tmp_path)[0]
    first.rename(first.with_name("0.safetensors"))
    other = write_shard(first.parent, [b"k" * 32], np.ones((1, 9), np.float32))
    run = FeatureCache(tmp_path).encode(hash_encoder(), ["tea"])
    assert run.cached == 1
    assert [other.name in notice for notice in run.notices] == [True]
    assert not other.exists()


def test_what_two_lookups_miss_is_encoded_once(tmp_path, hash_encoder):
    encoder = hash_encoder()
    shelf = FeatureCache(tmp_path).open(encoder)
    one, two = shelf.look_up(["tea", "cake"]), shelf.look_up(["cake", "cup"])
    assert (shelf.fill(one).encoded, shelf.fill(two).encoded) == (2, 1)
    assert sorted(encoder.encoded) == ["cake", "cup", "tea"]


def test_a_temporary_that_vanishes_while_it_is_looked_at_is_another_runs(
    hash_encoder, tmp_path, monkeypatch
):
    found = Path.glob

    def glob(self, pattern):
        return iter([self / "gone.tmp"]) if pattern == "*.tmp" else found(self, pattern)

    monkeypatch.setattr(Path, "glob", glob)
    assert FeatureCache(tmp_path).encode(hash_encoder(), ["a"]).encoded == 1
