from __future__ import annotations

import csv
import errno
import os
import shutil
import signal
import tempfile
from dataclasses import replace
from itertools import pairwise

import fsspec
import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO

from mmalign.errors import ConfigError, TrainingError
from mmalign.evaluation.protocol import evaluate
from mmalign.experiment import TrainingConfig
from mmalign.graph.propagation import LAYERS
from mmalign.interfaces import SLICES
from mmalign.models import Aligned, TrainData
from mmalign.models.aligned import AlignedConfig
from mmalign.trainers.module import AlignedModule
from mmalign.trainers.options import TRAINER_DEFAULTS
from mmalign.trainers.validation import monitors


def same_weights(left, right):
    assert left.keys() == right.keys()
    return all(torch.equal(left[name], right[name]) for name in left)


def mean_of(run, name):
    """The network's weights by the running mean that a checkpoint holds."""
    stored = run.checkpoint(name)["state_dict"]
    names = [name for name, _ in run.model.network.named_parameters()]
    return {name: stored[f"average.mean_{place}"] for place, name in enumerate(names)}


def script(monkeypatch, values):
    """Let validation find these values, one after the other."""
    left = list(values)

    def validate(self):
        self.log("valid/ndcg@20", left.pop(0))

    monkeypatch.setattr(AlignedModule, "on_validation_epoch_end", validate)


def interrupt(monkeypatch, step, error=KeyboardInterrupt):
    """Let training be stopped in one step, once."""
    real, pending = AlignedModule.training_step, [error]

    def training_step(self, batch, batch_idx):
        if self.global_step == step and pending:
            raise pending.pop()
        return real(self, batch, batch_idx)

    monkeypatch.setattr(AlignedModule, "training_step", training_step)


def test_the_loss_falls_and_the_planted_tastes_are_found(shop):
    run = shop.train(max_epochs=30, check_val_every_n_epoch=10)
    loss = run.values("train/loss")
    assert len(loss) == 30
    assert np.mean(loss[-5:]) < 0.97 * np.mean(loss[:5])
    assert run.values("valid/ndcg@20")[-1] > 0.48  # at random it is .24


def test_the_network_ends_at_the_running_mean_of_its_weights(shop):
    class Steps(Callback):
        def __init__(self):
            self.ids = []

        def on_train_batch_end(self, trainer, module, *_):
            self.ids.append(module.network.ids.detach().clone())

    steps = Steps()
    run = shop.train(model={"average": 0.4}, limit_val_batches=0, callbacks=[steps])
    mean = steps.ids[0]
    for taken, ids in enumerate(steps.ids[1:], start=2):
        stays = min(0.4, taken / (taken + 9))
        mean = stays * mean + (1 - stays) * ids
    assert len(steps.ids) == 9  # the sixth is the first with .4
    torch.testing.assert_close(run.model.network.ids.detach(), mean)
    assert not torch.allclose(mean, steps.ids[-1])


def test_content_settles_while_ids_go_on(shop):
    class Rates(Callback):
        def __init__(self):
            self.seen = []

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.seen.append([group["lr"] for group in trainer.optimizers[0].param_groups])

    rates = Rates()
    model = {"settle_steps": 4, "learning_rate": 0.01}
    run = shop.train(model=model, max_epochs=3, limit_val_batches=0, callbacks=[rates])
    content, biases, ids = zip(*rates.seen, strict=True)
    assert len(ids) == 9
    assert content == biases == pytest.approx([0.01] * 5 + [0.01 * 4 / s for s in range(5, 9)])
    assert set(ids) == {0.01}
    groups = run.checkpoint("last")["optimizer_states"][0]["param_groups"]
    sizes = [len(group["params"]) for group in groups]
    assert sizes[2] == 1
    assert sum(sizes) == len(list(run.model.network.parameters()))


def test_valid_measures_the_mean_that_is_kept(shop):
    run = shop.train(max_epochs=6)

    class Network:
        def score(self, history, items):
            return run.model.network_scores(history)[:, items]

    found = evaluate(Network(), shop.catalog, "valid", ks=(20,))
    assert found.harmonic_mean("ndcg@20") == pytest.approx(max(run.values("valid/ndcg@20")))


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(shop):
    first, again = shop.train(folder="first"), shop.train(folder="again")
    other = shop.train(folder="other", seed=1)
    assert same_weights(first.model.network.state_dict(), again.model.network.state_dict())
    assert first.curve == again.curve
    assert not same_weights(first.model.network.state_dict(), other.model.network.state_dict())


def test_dropout_is_on_in_every_step_after_validations_too(shop, monkeypatch):
    real, modes = AlignedModule.training_step, []

    def training_step(self, batch, batch_idx):
        modes.append({module.training for module in self.network.modules()})
        return real(self, batch, batch_idx)

    monkeypatch.setattr(AlignedModule, "training_step", training_step)
    shop.train(max_epochs=3)
    assert modes == [{True}] * len(modes)
    assert len(modes) == 9


def test_early_stopping_ends_training_and_the_best_weights_are_loaded_back(shop, monkeypatch):
    script(monkeypatch, [0.1, 0.5, 0.4, 0.3, 0.2, 0.1])
    run = shop.train(max_epochs=6, training=TrainingConfig(patience=2))
    assert run.values("valid/ndcg@20") == pytest.approx([0.1, 0.5, 0.4, 0.3])
    best, last = run.checkpoint("best"), run.checkpoint("last")
    assert (best["epoch"], last["epoch"]) == (1, 3)
    assert same_weights(run.model.network.state_dict(), mean_of(run, "best"))
    assert not same_weights(mean_of(run, "best"), mean_of(run, "last"))


def test_the_model_is_frozen_at_the_weights_it_ends_with(shop):
    run = shop.train()
    vectors = run.model.vectors.copy()
    run.model.freeze(TrainData(shop.catalog.matrix("train"), shop.features))
    np.testing.assert_array_equal(run.model.vectors, vectors)


def test_frozen_content_is_as_it_was(shop):
    before = {name: x.values.copy() for name, x in shop.features.items()}
    shop.train()
    for name, feature in shop.features.items():
        np.testing.assert_array_equal(feature.values, before[name])


def test_without_valid_rows_all_epochs_run_and_the_last_weights_stay(shop, log, make_catalog):
    shop.catalog = make_catalog(log[log["split"] != "valid"])
    run = shop.train(max_epochs=4, check_val_every_n_epoch=2, training=TrainingConfig(patience=1))
    assert len(run.values("train/loss")) == 4
    assert not run.values("valid/ndcg@20")
    assert not (run.folder / "checkpoints" / "best.ckpt").exists()
    assert same_weights(run.model.network.state_dict(), mean_of(run, "last"))


def test_logs_and_diagnostics_are_written(shop):
    run = shop.train(max_epochs=2)
    with open(run.folder / "csv" / "version_0" / "metrics.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = {
        *monitors(SLICES),
        "diagnostics/alignment",
        "diagnostics/uniformity",
        "diagnostics/content_retrieval@10",
        "diagnostics/modality_gap_group",
        "diagnostics/modality_gap_image",
        "train/loss",
    }
    for name in names:
        logged = [float(row[name]) for row in rows if row.get(name)]
        assert len(logged) == 2, name
        assert np.isfinite(logged).all(), name
        assert run.values(name) == pytest.approx(logged), name
    assert [p.epoch for p in run.curve if p.name == "valid/ndcg@20"] == [0, 1]
    assert list((run.folder / "tensorboard" / "version_0").glob("events.*"))


@pytest.mark.parametrize(
    ("step", "every"),
    [
        (7, 1),  # inside the third epoch
        (9, 1),  # at the start of the fourth
        (7, 4),  # the last that is saved was not validated
        (16, 4),  # only the last epoch is left, and it is no fourth one
    ],
)
def test_interrupted_and_resumed_is_as_if_never_interrupted(shop, monkeypatch, step, every):
    epochs = {"max_epochs": 6, "check_val_every_n_epoch": every, "model": {"settle_steps": 4}}
    unbroken = shop.train(**epochs, folder="unbroken")
    with monkeypatch.context() as patch:
        interrupt(patch, step)
        with pytest.raises(
            TrainingError, match=r"interrupted: go on with --ckpt_path .*last\.ckpt"
        ):
            shop.train(**epochs, folder="broken")
    last = shop.folder / "broken" / "checkpoints" / "last.ckpt"
    resumed = shop.train(**epochs, folder="broken", resume=str(last))
    assert same_weights(
        unbroken.checkpoint("last")["state_dict"], resumed.checkpoint("last")["state_dict"]
    )
    assert same_weights(unbroken.model.network.state_dict(), resumed.model.network.state_dict())
    assert unbroken.curve == resumed.curve
    assert [p.epoch for p in resumed.curve if p.name == "valid/ndcg@20"] == (
        [0, 1, 2, 3, 4, 5] if every == 1 else [3, 5]
    )
    np.testing.assert_array_equal(unbroken.model.vectors, resumed.model.vectors)


def test_the_best_before_an_interruption_is_still_the_best_after_it(shop, monkeypatch):
    script(monkeypatch, [0.5, 0.4, 0.3, 0.2])
    interrupt(monkeypatch, 6)
    with pytest.raises(TrainingError):
        shop.train(max_epochs=4)
    last = shop.folder / "run" / "checkpoints" / "last.ckpt"
    run = shop.train(max_epochs=4, resume=str(last))
    assert run.checkpoint("best")["epoch"] == 0
    assert same_weights(run.model.network.state_dict(), mean_of(run, "best"))


class Full(Callback):
    """Fills a disk at the start of an epoch, but for some bytes."""

    def __init__(self, folder, epoch, left=0):
        self.folder, self.epoch, self.left = folder, epoch, left

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            free = shutil.disk_usage(self.folder).free - self.left
            (self.folder / "filler").write_bytes(bytes(free // 4096 * 4096))


@pytest.mark.parametrize("left", [0, 8192, 65536])
def test_a_full_disk_leaves_the_last_checkpoint_to_go_on_from(shop, small_disk, monkeypatch, left):
    script(monkeypatch, [0.3, 0.2, 0.1, 0.1, 0.3, 0.2, 0.1])
    shop.folder = small_disk(4_000_000)
    last = shop.folder / "run" / "checkpoints" / "last.ckpt"
    saves = rf"could not save .*last\.ckpt \(got 'No space.*free space, then .*--ckpt_path {last}$"
    with pytest.raises(TrainingError, match=saves) as caught:
        shop.train(callbacks=[Full(shop.folder, 2, left)])
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)
    assert sorted(p.name for p in last.parent.iterdir()) == ["best.ckpt", "last.ckpt"]
    (shop.folder / "filler").unlink()
    resumed, whole = shop.train(resume=str(last)), shop.train(folder="whole")
    np.testing.assert_array_equal(resumed.model.vectors, whole.model.vectors)


def test_a_disk_that_is_full_before_the_first_checkpoint_is_one_line(shop, small_disk):
    shop.folder = small_disk(4_000_000)
    shop.train(max_epochs=1, folder="run")  # what it saved is not a place to go on from
    with pytest.raises(
        TrainingError, match=r"could not (save|write).*free space, then start again"
    ):
        shop.train(callbacks=[Full(shop.folder, 0)])


def fail(monkeypatch, error, after):
    """Let the system fail to keep what is written, after some files."""
    real, calls = os.fsync, []

    def fsync(handle):
        calls.append(handle)
        if len(calls) > after:
            raise error
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize(
    ("after", "message"),
    [
        (0, r"checkpoint .*best\.ckpt \(got 'No space left.*: free space, then start again$"),
        (1, r"checkpoint .*last\.ckpt \(got 'No space left.*: free space, then start again$"),
        (2, r"checkpoint .*best\.ckpt .*: free space, then go on with --ckpt_path .*last\.ckpt$"),
        (3, r"checkpoint .*last\.ckpt .*: free space, then go on with --ckpt_path .*last\.ckpt$"),
    ],
)
def test_a_checkpoint_is_saved_whole_or_not_at_all(shop, monkeypatch, after, message):
    shop.train(max_epochs=1)  # whose checkpoints a new run does not name
    with monkeypatch.context() as patch:
        script(patch, [0.1, 0.2, 0.3])
        fail(patch, OSError(errno.ENOSPC, "No space left on device"), after)
        with pytest.raises(TrainingError, match=message):
            shop.train(max_epochs=3)
    folder = shop.folder / "run" / "checkpoints"
    assert sorted(p.name for p in folder.iterdir()) == ["best.ckpt", "last.ckpt"]
    assert torch.load(folder / "best.ckpt", weights_only=True)["epoch"] == after // 3
    resumed = shop.train(resume=str(folder / "last.ckpt"))
    assert [point.epoch for point in resumed.curve if point.name == "train/loss"] == [0, 1, 2]


def test_a_resumed_run_that_saves_nothing_goes_on_from_where_it_did(shop, monkeypatch):
    first = shop.train(max_epochs=1, folder="first").folder / "checkpoints" / "last.ckpt"
    fail(monkeypatch, OSError(errno.EIO, "Input/output error"), 0)
    with pytest.raises(TrainingError, match=rf"Input/output.*: mend that, then .*path {first}$"):
        shop.train(resume=str(first))


def test_what_a_killed_run_left_unfinished_is_removed(shop):
    folder = shop.train(max_epochs=1).folder / "checkpoints"
    (folder / "4711.part").mkdir()
    (folder / "4711.part" / "last.ckpt").write_bytes(b"torn")
    shop.train(max_epochs=2)
    assert sorted(p.name for p in folder.iterdir()) == ["best.ckpt", "last.ckpt"]


def test_checkpoints_do_not_pass_through_another_disk(shop, small_disk, monkeypatch):
    elsewhere = str(small_disk(4096))
    monkeypatch.setattr(tempfile, "tempdir", elsewhere)
    run = shop.train(max_epochs=1)
    assert run.checkpoint("last")["epoch"] == 0
    assert tempfile.tempdir == elsewhere


def test_checkpoints_of_other_callbacks_may_lie_elsewhere(shop):
    shop.train(max_epochs=1, callbacks=[ModelCheckpoint("memory://elsewhere", "own", "train/loss")])
    assert fsspec.filesystem("memory").exists("/elsewhere/own.ckpt")


def test_who_saves_checkpoints_may_be_told(shop):
    class Own(TorchCheckpointIO):
        saved = 0

        def save_checkpoint(self, *args, **options):
            self.saved += 1
            super().save_checkpoint(*args, **options)

    own = Own()
    shop.train(max_epochs=1, plugins=[own])
    assert own.saved == 2


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
            "2 GiB.*batch_size",
        ),
        (
            RuntimeError(
                "Caught in worker 0.\nDefaultCPUAllocator: can't allocate memory: 8 bytes"
            ),
            r"ran out of memory \(got \"DefaultCPUAllocator.*8 bytes\"\): lower batch_size",
        ),
    ],
)
def test_too_little_memory_is_one_line(shop, monkeypatch, error, message):
    interrupt(monkeypatch, 1, error)
    with pytest.raises(TrainingError, match=message) as caught:
        shop.train()
    assert caught.value.__cause__ is error


def test_how_much_memory_was_asked_for_is_said(shop, monkeypatch):
    monkeypatch.setattr(AlignedModule, "training_step", lambda *_: torch.empty(10**15))
    with pytest.raises(TrainingError, match=r"tried to allocate 4\d{15} bytes"):
        shop.train()


def test_a_log_that_cannot_be_closed_does_not_hide_the_checkpoint(shop, monkeypatch):
    def finalize(self, status):
        raise OSError(errno.ENOSPC, "No space left on device")

    fail(monkeypatch, OSError(errno.EIO, "Input/output error"), 0)
    monkeypatch.setattr(CSVLogger, "finalize", finalize)
    with pytest.raises(TrainingError, match=r"checkpoint .*ckpt \(got 'Input/output error'"):
        shop.train(max_epochs=1)


def test_a_step_that_no_number_can_hold_is_one_line(shop):
    with pytest.raises(TrainingError, match=r"too large for a number .*lower learning_rate"):
        shop.train(model={"learning_rate": 1e39})


def test_a_bug_keeps_its_traceback(shop, monkeypatch):
    error = RuntimeError("The size of tensor a (3) must match the size of tensor b (4)")
    interrupt(monkeypatch, 1, error)
    with pytest.raises(RuntimeError) as caught:
        shop.train()
    assert caught.value is error


def test_an_interruption_leaves_ctrl_c_as_it_was(shop, monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    shop.train(max_epochs=1)
    interrupt(monkeypatch, 0)  # what the first run saved is not a place to go on from
    with pytest.raises(TrainingError, match="interrupted: start again"):
        shop.train()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_loss_that_is_not_finite_is_one_line(shop):
    with pytest.raises(TrainingError, match="loss is not finite") as caught:
        shop.train(model={"learning_rate": 1e30})
    assert "\n" not in str(caught.value)


def test_an_unknown_metric_to_monitor_is_named_before_training(shop, log, make_catalog):
    with pytest.raises(ConfigError, match=r"training\.monitor .*did you mean 'valid/ndcg@20'"):
        shop.train(training=TrainingConfig(monitor="valid/ndgc@20"))
    is_cold_in_valid = (log["split"] == "valid") & (log["item"] < 10)
    shop.catalog = make_catalog(log[~is_cold_in_valid])
    with pytest.raises(ConfigError, match=r"training\.monitor"):
        shop.train(training=TrainingConfig(monitor="valid/cold_ndcg@20"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_epoch": 3}, "did you mean 'max_epochs'"),
        ({"logger": True}, "trainer.logger is set by mmalign itself"),
        ({"limit_val_batches": 0.5}, "limit_val_batches"),
        ({"accelerator": "abacus"}, "abacus"),
        ({"devices": 0}, "lightning cannot train like this"),
    ],
)
def test_trainer_options_that_cannot_work_are_one_line(shop, options, message):
    with pytest.raises(ConfigError, match=message) as caught:
        shop.train(**options)
    assert "\n" not in str(caught.value)


def test_a_later_run_replaces_the_checkpoints_of_an_earlier_one(shop, monkeypatch):
    script(monkeypatch, [0.9, 0.8])
    shop.train(max_epochs=2)
    script(monkeypatch, [0.1, 0.2, 0.3])
    run = shop.train(max_epochs=3, seed=1)
    assert sorted(p.name for p in (run.folder / "checkpoints").iterdir()) == [
        "best.ckpt",
        "last.ckpt",
    ]
    assert run.checkpoint("best")["epoch"] == 2


def test_a_training_shorter_than_the_validations_apart_is_validated_at_its_end(shop):
    assert TRAINER_DEFAULTS["check_val_every_n_epoch"] > 3
    run = shop.train(max_epochs=3, check_val_every_n_epoch=None)
    assert [p.epoch for p in run.curve if p.name == "valid/ndcg@20"] == [2]
    assert run.checkpoint("best")["epoch"] == run.checkpoint("last")["epoch"] == 2


def test_the_last_epoch_can_be_chosen_whatever_its_number(shop, monkeypatch):
    script(monkeypatch, [0.1, 0.2, 0.9])
    run = shop.train(max_epochs=5, check_val_every_n_epoch=2)
    assert [p.epoch for p in run.curve if p.name == "valid/ndcg@20"] == [1, 3, 4]
    assert run.checkpoint("best")["epoch"] == 4


@pytest.mark.parametrize(
    ("steps", "every", "epochs"),
    [(4, 10, [1]), (6, 10, [1]), (4, 1, [0, 1]), (6, 1, [0, 1])],  # three steps are an epoch
)
def test_the_last_step_is_validated(shop, steps, every, epochs):
    run = shop.train(max_steps=steps, max_epochs=-1, check_val_every_n_epoch=every)
    assert [p.epoch for p in run.curve if p.name == "valid/ndcg@20"] == epochs
    assert run.checkpoint("last")["global_step"] == steps // 3 * 3
    assert (run.folder / "checkpoints" / "best.ckpt").is_file()


@pytest.mark.parametrize("steps", [3, 4])
def test_a_run_cut_short_by_steps_goes_on_from_its_last_whole_epoch(shop, steps):
    last = shop.train(max_steps=steps, max_epochs=-1).folder / "checkpoints" / "last.ckpt"
    with pytest.raises(ConfigError, match=r"whole epochs, not by steps .*max_steps=8"):
        shop.train(max_steps=8, resume=str(last))
    resumed = shop.train(max_epochs=3, resume=str(last))
    whole = shop.train(max_epochs=3, folder="whole")
    assert resumed.curve == whole.curve
    np.testing.assert_array_equal(resumed.model.vectors, whole.model.vectors)


def test_the_best_of_a_run_that_went_on_elsewhere_is_its_own(shop, monkeypatch):
    """Another run took the folder in the meantime, and left its own best there."""
    with monkeypatch.context() as patch:
        script(patch, [0.5, 0.4])
        first = shop.train(max_epochs=2)
    kept = shutil.copytree(first.folder / "checkpoints", shop.folder / "kept")
    shop.train(max_epochs=1, seed=5)
    with monkeypatch.context() as patch:
        script(patch, [0.3])
        resumed = shop.train(max_epochs=3, resume=str(kept / "last.ckpt"))
    assert same_weights(resumed.model.network.state_dict(), first.model.network.state_dict())


@pytest.mark.parametrize("none", [0, 0.0])
def test_no_validation_can_be_asked_for(shop, none):
    run = shop.train(max_epochs=3, limit_val_batches=none, training=TrainingConfig(patience=1))
    assert len(run.values("train/loss")) == 3
    assert not run.values("valid/ndcg@20")
    assert [p.name for p in (run.folder / "checkpoints").iterdir()] == ["last.ckpt"]
    assert same_weights(run.model.network.state_dict(), mean_of(run, "last"))


def test_diagnostics_are_measured_in_every_epoch(shop):
    run = shop.train(max_epochs=4, check_val_every_n_epoch=3)
    named = {p.name for p in run.curve if p.name.startswith("diagnostics/")}
    assert len(named) == 5
    for name in named:
        assert [p.epoch for p in run.curve if p.name == name] == [0, 1, 2, 3], name
    assert len(set(run.values("diagnostics/alignment"))) == 4


def test_diagnostics_read_a_sample_of_a_large_catalogue(shop, monkeypatch):
    seen = []
    monkeypatch.setattr("mmalign.trainers.module.CONTRASTED_ITEMS", 5)
    monkeypatch.setattr(
        "mmalign.objectives.alignment.uniformity", lambda x: seen.append(x) or x.sum()
    )
    shop.train(max_epochs=2)
    assert [len(x) for x in seen] == [5, 5]


@pytest.mark.parametrize("layer", LAYERS)
def test_every_layer_is_trained(shop, layer):
    run = shop.train(
        max_epochs=6,
        check_val_every_n_epoch=6,
        model={"layer": layer, "learning_rate": 1e-2, "hidden_dim": 32, "fused_dim": 16},
    )
    loss = run.values("train/rank")
    assert np.mean(loss[-2:]) < 0.98 * np.mean(loss[:2])
    before = Aligned(run.model.config).fit(TrainData(shop.catalog.matrix("train"), shop.features))
    before = before.network.state_dict()
    moved = [not torch.equal(x, before[n]) for n, x in run.model.network.state_dict().items()]
    assert all(moved)


def test_sampled_negatives_train_too(shop):
    loss = shop.train(max_epochs=12, model={"negatives": 30}).values("train/rank")
    assert np.isfinite(loss).all()
    assert np.mean(loss[-3:]) < np.mean(loss[:3])


def test_the_other_modalities_go_on_when_one_is_absent_everywhere(shop):
    nowhere = shop.features["image"]
    absent = replace(
        nowhere, values=np.zeros_like(nowhere.values), present=np.zeros_like(nowhere.present)
    )
    shop.features = {**shop.features, "image": absent}
    run = shop.train(max_epochs=2)
    assert np.isfinite(run.model.vectors).all()


def test_the_curve_goes_forward(shop):
    run = shop.train(max_epochs=4, check_val_every_n_epoch=2)
    epochs = [p.epoch for p in run.curve]
    assert all(left <= right for left, right in pairwise(epochs))
    assert [p.epoch for p in run.curve if p.name == "valid/ndcg@20"] == [1, 3]


def test_training_reads_warm_items_wherever_they_stand(shop, log, make_catalog):
    """Items 0 to 19 are cold."""
    catalog = make_catalog(log)
    data = TrainData(catalog.matrix("train"), shop.features)
    model = Aligned(AlignedConfig(embedding_dim=4)).fit(data)
    module = AlignedModule(model, data, catalog, seed=0)
    np.testing.assert_array_equal(module._matrix.toarray(), data.matrix.toarray()[:, 20:])
    np.testing.assert_array_equal(module._items.fused.numpy(), model.teacher.content[20:])
    np.testing.assert_array_equal(module._similar.csr.toarray(), model.similar.toarray()[20:, 20:])
