from __future__ import annotations

import copy
import shutil
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback

from mmalign.data.held_out import split_items
from mmalign.errors import ConfigError, DataError, TrainingError
from mmalign.finetuning import TowerConfig
from mmalign.trainers.finetune import _stamp, finetune
from mmalign.trainers.finetuning.data import _key
from mmalign.trainers.finetuning.module import FinetuneModule
from mmalign.trainers.finetuning.validation import encode_rows
from mmalign.trainers.finetuning.views import Views
from mmalign.trainers.resume import read_checkpoint

ALL = {"image_text": 1.0, "behaviour": 0.5, "text_pairs": 0.5, "graph": 0.5}


def weights(towers):
    return {
        f"{m}.{n}": p.detach().clone() for m, t in towers.items() for n, p in t.named_parameters()
    }


def curve(result, name):
    return {p.epoch: p.value for p in result.curve if p.name == name}


def test_partners_are_found_that_were_never_trained_on(shop, towers, told, tmp_path):
    result = finetune(told(20), shop, towers, folder=tmp_path, progress=False)
    found = result.measure("test")
    assert found["image_to_text@1"] > 0.7
    assert found["text_to_image@1"] > 0.7
    assert found["retrieval"] == pytest.approx(
        np.mean([found[f"{a}@{k}"] for a in ("image_to_text", "text_to_image") for k in (1, 10)])
    )


class Killed(Callback):
    """Interrupts a run at the start of an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            raise KeyboardInterrupt


@pytest.mark.parametrize("loss", ["clip", "siglip"])
def test_either_loss_falls(shop, towers, told, tmp_path, loss):
    result = finetune(told(8, loss=loss), shop, towers, folder=tmp_path, progress=False)
    losses = list(curve(result, "train/loss").values())
    assert losses[-1] < losses[0] / 2


def test_all_objectives_train_together(shop, towers, told, tmp_path):
    config = told(1, objectives=ALL, text_pairs=("title", "notes"), field_dropout=0.3)
    result = finetune(config, shop, towers, folder=tmp_path, progress=False)
    names = {p.name for p in result.curve}
    for name in ("image_text", "behaviour.text", "behaviour.image", "text_pairs", "graph.text"):
        assert f"train/{name}" in names
    assert {"train/graph.text/staleness", "train/graph.text/memory_age"} <= names
    assert {"train/items_per_second", "train/peak_memory_gb", "valid/retrieval"} <= names
    assert "valid/text_cold_ndcg@20" in names
    assert result.peak_memory_gb > 0.1


def test_behaviour_puts_unseen_items_of_one_taste_together(shop, towers, told, tmp_path):
    cold = np.flatnonzero(~shop.warm)
    kind = np.asarray([int(title[4]) for title in shop.items["title"]])[cold]
    alike = torch.from_numpy(kind[:, None] == kind[None, :])

    def gap(modality):
        content = shop.texts() if modality == "text" else shop.images()
        rows = encode_rows(towers[modality], [content[row] for row in cold]).values
        cosine = rows @ rows.T
        return float(cosine[alike].mean() - cosine[~alike].mean())

    before = {modality: gap(modality) for modality in towers}
    config = told(15, objectives={"behaviour": 1.0}, neighbours=5)
    finetune(config, shop, towers, folder=tmp_path, progress=False)
    for modality in towers:
        assert gap(modality) > before[modality] + 0.2


def test_cold_items_are_not_trained_on(shop, towers, told, tmp_path):
    """Other content of unseen items, same weights: nothing of them was read."""
    items = shop.items.copy()
    cold = ~shop.warm
    items.loc[cold, "title"] = "nonsense"
    items.loc[cold, "image"] = [b"broken"] * cold.sum()
    changed = type(shop).from_pandas(items, shop.interactions, config=shop.config)
    config = told(2, objectives=ALL, text_pairs=("title", "notes"))
    config = replace(config, trainer={"max_epochs": 2, "limit_val_batches": 0})
    other = copy.deepcopy(towers)
    finetune(config, shop, towers, folder=tmp_path / "a", progress=False)
    finetune(config, changed, other, folder=tmp_path / "b", progress=False)
    for name, value in weights(towers).items():
        torch.testing.assert_close(value, weights(other)[name], rtol=0, atol=0)


def test_the_same_seed_gives_the_same_weights(shop, towers, told, tmp_path):
    other = copy.deepcopy(towers)
    finetune(told(2), shop, towers, folder=tmp_path / "a", progress=False)
    finetune(told(2), shop, other, folder=tmp_path / "b", progress=False)
    for name, value in weights(towers).items():
        assert torch.equal(value, weights(other)[name])


def test_chunks_change_nothing(shop, towers, told, tmp_path):
    other = copy.deepcopy(towers)
    finetune(told(2), shop, towers, folder=tmp_path / "a", progress=False)
    finetune(told(2, chunk_size=5), shop, other, folder=tmp_path / "b", progress=False)
    for name, value in weights(towers).items():
        torch.testing.assert_close(value, weights(other)[name], rtol=1e-3, atol=1e-4)


def unbroken_and_resumed(config, shop, towers, folder):
    """The same run in ``whole``, and in ``part`` killed before its third epoch and resumed."""
    broken, again = copy.deepcopy(towers), copy.deepcopy(towers)
    whole = finetune(config, shop, towers, folder=folder / "whole", progress=False)
    given = {"folder": folder / "part", "progress": False}
    with pytest.raises(TrainingError, match="interrupted"):
        finetune(config, shop, broken, callbacks=[Killed(2)], **given)
    last = str(folder / "part" / "checkpoints" / "last.ckpt")
    return whole, finetune(config, shop, again, resume=last, **given)


def assert_equal_ends(folder):
    ends = [
        read_checkpoint(str(folder / f / "checkpoints" / "last.ckpt")) for f in ("whole", "part")
    ]
    for name, value in ends[0]["state_dict"].items():
        torch.testing.assert_close(value, ends[1]["state_dict"][name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("objective", ["image_text", "behaviour", "text_pairs", "graph"])
def test_a_resumed_run_has_the_curve_of_an_unbroken_one(shop, towers, told, tmp_path, objective):
    config = told(
        4,
        objectives={objective: 1.0},
        text_pairs=("title", "notes"),
        image=TowerConfig(views=2),
        average=0.8,
    )
    whole, resumed = unbroken_and_resumed(config, shop, towers, tmp_path)
    for name in ("train/loss", "valid/retrieval"):
        assert curve(resumed, name) == pytest.approx(curve(whole, name), abs=1e-6)
    assert_equal_ends(tmp_path)


@pytest.mark.parametrize("drift", ["none", "similarity"])
def test_a_run_that_started_in_closed_form_is_resumed(shop, towers, told, tmp_path, drift):
    more = {"drift": drift, "drift_weight": 0.5, "image": TowerConfig(views=2)}
    config = told(4, start="ridge", **more)
    unbroken_and_resumed(config, shop, towers, tmp_path)
    assert_equal_ends(tmp_path)


def test_views_train_like_pictures_and_are_removed(shop, towers, told, tmp_path):
    plain, viewed = copy.deepcopy(towers), copy.deepcopy(towers)
    whole = finetune(told(4), shop, plain, folder=tmp_path / "plain", progress=False)
    told_views = told(4, image=TowerConfig(views=2))
    parts = finetune(told_views, shop, viewed, folder=tmp_path / "views", progress=False)
    assert curve(parts, "train/loss") == pytest.approx(curve(whole, "train/loss"), rel=1e-2)
    assert not (tmp_path / "views" / "views").exists()


def test_views_are_of_all_items_that_any_objective_draws(shop, towers, told, tmp_path):
    items = shop.items.copy()
    items["split"] = ["valid" if warm and n % 2 else "train" for n, warm in enumerate(shop.warm)]
    catalog = type(shop).from_pandas(items, shop.interactions, config=shop.config)
    told_views = told(2, objectives={"behaviour": 1.0}, image=TowerConfig(views=2))
    plain = copy.deepcopy(towers)
    viewed = finetune(told_views, catalog, towers, folder=tmp_path / "views", progress=False)
    whole = finetune(
        told(2, objectives={"behaviour": 1.0}),
        catalog,
        plain,
        folder=tmp_path / "plain",
        progress=False,
    )
    assert curve(viewed, "train/loss") == pytest.approx(curve(whole, "train/loss"), rel=1e-2)


def test_the_running_mean_of_weights_is_measured_and_kept(shop, towers, told, tmp_path):
    config = told(3, average=0.9)
    found = finetune(config, shop, towers, folder=tmp_path, progress=False)
    best = read_checkpoint(str(tmp_path / "checkpoints" / "best.ckpt"))["state_dict"]
    kept = weights(towers)
    trained = [name for name in best if name.startswith("towers.")]
    means = [best[f"average.mean_{number}"] for number in range(len(trained))]
    assert any(not torch.equal(kept[name[7:]], best[name]) for name in trained)
    for value in kept.values():
        assert any(torch.equal(value, mean) for mean in means if mean.shape == value.shape)
    peak = max(curve(found, "valid/retrieval").values())
    assert found.measure("valid")["retrieval"] == pytest.approx(peak, abs=1e-6)


def test_a_checkpoint_of_another_run_is_refused(shop, towers, told, tmp_path):
    finetune(told(1), shop, copy.deepcopy(towers), folder=tmp_path, progress=False)
    last = str(tmp_path / "checkpoints" / "last.ckpt")
    with pytest.raises(TrainingError, match="temperature"):
        finetune(
            told(1, temperature=0.2), shop, towers, folder=tmp_path, resume=last, progress=False
        )


def test_a_loss_that_is_not_finite_stops_at_the_last_good_checkpoint(
    shop, towers, told, tmp_path, monkeypatch
):
    from mmalign.trainers.finetuning import objectives

    plain, calls = objectives.clip_loss, []

    def broken(*args, **named):
        calls.append(1)
        return plain(*args, **named) * (float("nan") if len(calls) > 10 else 1)

    monkeypatch.setattr(objectives, "clip_loss", broken)
    with pytest.raises(TrainingError, match=r"not finite in epoch 3.*last\.ckpt.*last good"):
        finetune(told(4), shop, copy.deepcopy(towers), folder=tmp_path, progress=False)
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["epoch"] == 1
    assert all(torch.isfinite(value).all() for value in saved["state_dict"].values())
    # As the error says: the best weights so far are left in the towers, and nothing is trained.
    last = str(tmp_path / "checkpoints" / "last.ckpt")
    finetune(told(1), shop, towers, folder=tmp_path, resume=last, progress=False)
    best = read_checkpoint(str(tmp_path / "checkpoints" / "best.ckpt"))["state_dict"]
    for name, value in weights(towers).items():
        assert torch.equal(value, best[f"towers.{name}"])


def test_weights_that_the_last_step_broke_are_neither_measured_nor_kept(
    shop, towers, told, tmp_path, monkeypatch
):
    plain = FinetuneModule._step

    def breaking(module):
        plain(module)
        if module.current_epoch == 2 and module.trainer.is_last_batch:
            next(module.towers["text"].parameters()).data[0] = float("nan")

    monkeypatch.setattr(FinetuneModule, "_step", breaking)
    what = r"weights are not finite in epoch 3 .*1 tensors, towers\.text.*last\.ckpt.*last good"
    with pytest.raises(TrainingError, match=what):
        finetune(told(4), shop, towers, folder=tmp_path, progress=False)
    for name in ("last", "best"):
        saved = read_checkpoint(str(tmp_path / "checkpoints" / f"{name}.ckpt"))
        assert saved["epoch"] < 2
        assert all(torch.isfinite(value).all() for value in saved["state_dict"].values())


def test_weights_are_looked_at_where_steps_end_a_run_inside_an_epoch(
    shop, towers, told, tmp_path, monkeypatch
):
    plain = FinetuneModule._step

    def breaking(module):
        plain(module)
        next(module.towers["text"].parameters()).data[0] = float("nan")

    monkeypatch.setattr(FinetuneModule, "_step", breaking)
    config = replace(told(1), trainer={"max_steps": 1, "max_epochs": -1})
    with pytest.raises(TrainingError, match="weights are not finite in epoch 1"):
        finetune(config, shop, towers, folder=tmp_path, progress=False)


@pytest.mark.parametrize("column", ["title", "image"])
def test_content_that_is_the_same_for_all_items_is_refused(shop, towers, told, tmp_path, column):
    items = shop.items.assign(**{column: [shop.items[column][0]] * shop.num_items})
    if column == "title":
        items["notes"] = "the same"
    alike = type(shop).from_pandas(items, shop.interactions, config=shop.config)
    half = "text" if column == "title" else "image"
    with pytest.raises(DataError, match=f"{half} is the same for all items to train on"):
        finetune(told(1), alike, towers, folder=tmp_path, progress=False)


def test_says_of_how_many_items_valid_is_measured(shop, towers, told, tmp_path, capsys):
    items = shop.items.copy()
    _, valid, _ = split_items(shop)
    items.loc[valid[1:], "image"] = None
    few = type(shop).from_pandas(items, shop.interactions, config=shop.config)
    result = finetune(told(1), few, towers, folder=tmp_path)
    assert result.measure.counts("valid") == {"image and text": 1}
    said = "valid measures image and text of 1 items, too few for recall to say anything"
    assert said in capsys.readouterr().err


def test_half_of_the_pictures_missing_costs_their_pairs_alone(shop, towers, told, tmp_path):
    items = shop.items.copy()
    items["image"] = [None if n % 2 else value for n, value in enumerate(items["image"])]
    halved = type(shop).from_pandas(items, shop.interactions, config=shop.config)
    result = finetune(told(2), halved, towers, folder=tmp_path, progress=False)
    assert np.isfinite(result.measure("valid")["image_to_text@10"])


def test_broken_pictures_are_reported(shop, towers, told, tmp_path):
    items = shop.items.copy()
    warm = np.flatnonzero(shop.warm)
    images = list(items["image"])
    images[warm[3]] = b"broken"
    items["image"] = images
    catalog = type(shop).from_pandas(items, shop.interactions, config=shop.config)
    result = finetune(told(1), catalog, towers, folder=tmp_path, progress=False)
    assert result.problems == {"image": {catalog.item_ids[warm[3]]: "no picture"}}


def test_batches_may_lack_every_picture(shop, towers, told, tmp_path):
    items = shop.items.copy()
    kept = np.flatnonzero(shop.warm)[:12]
    items["image"] = [
        v if n in kept or not shop.warm[n] else b"broken" for n, v in enumerate(items["image"])
    ]
    catalog = type(shop).from_pandas(items, shop.interactions, config=shop.config)
    config = told(1, batch_size=4, chunk_size=2)
    result = finetune(config, catalog, towers, folder=tmp_path, progress=False)
    assert np.isfinite(curve(result, "train/loss")[0])
    assert len(result.problems["image"]) == shop.warm.sum() - 12


def test_one_pair_cannot_be_contrasted(shop, towers, told, tmp_path):
    items = shop.items.copy()
    only = np.flatnonzero(shop.warm)[0]
    items["image"] = [value if n == only else None for n, value in enumerate(items["image"])]
    catalog = type(shop).from_pandas(items, shop.interactions, config=shop.config)
    with pytest.raises(DataError, match=r"contrast needs two items.*got 1"):
        finetune(told(1), catalog, towers, folder=tmp_path, progress=False)


def test_batches_of_one_pair_have_nothing_to_say(told):
    for objective in ALL:
        with pytest.raises(ConfigError, match="a batch of one has nothing to contrast"):
            told(1, batch_size=1, objectives={objective: 1.0}, text_pairs=("title", "notes"))


def test_a_best_checkpoint_that_was_left_behind_is_named(shop, towers, told, tmp_path):
    finetune(told(2), shop, copy.deepcopy(towers), folder=tmp_path / "a", progress=False)
    (tmp_path / "moved").mkdir()
    last = shutil.copy(tmp_path / "a" / "checkpoints" / "last.ckpt", tmp_path / "moved")
    with pytest.raises(TrainingError, match=r"not beside.*moved/best\.ckpt.*copy both"):
        finetune(told(3), shop, towers, folder=tmp_path / "b", resume=str(last), progress=False)


def test_training_does_not_go_on_from_inside_an_epoch(shop, towers, told, tmp_path):
    finetune(told(2), shop, copy.deepcopy(towers), folder=tmp_path, progress=False)
    best = str(tmp_path / "checkpoints" / "best.ckpt")
    with pytest.raises(TrainingError, match=r"inside an epoch.*give last\.ckpt"):
        finetune(told(3), shop, towers, folder=tmp_path, resume=best, progress=False)


def test_a_resumed_run_may_be_served_and_written_differently(shop, towers, told, tmp_path):
    finetune(told(1), shop, copy.deepcopy(towers), folder=tmp_path, progress=False)
    last = str(tmp_path / "checkpoints" / "last.ckpt")
    other = told(2, test=True, merge=False, workers=1)
    result = finetune(other, shop, towers, folder=tmp_path, resume=last, progress=False)
    assert set(curve(result, "train/loss")) == {0, 1}


def test_seconds_are_those_of_all_pieces_of_a_run(shop, towers, told, tmp_path, monkeypatch):
    views = TowerConfig(views=1)
    plain = Views._write
    monkeypatch.setattr(Views, "_write", lambda *told: time.sleep(1) or plain(*told))
    config = told(1, image=views)
    first = finetune(config, shop, copy.deepcopy(towers), folder=tmp_path, progress=False)
    last = tmp_path / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    assert 1 < checkpoint["seconds"] <= first.seconds < 60
    torch.save({**checkpoint, "seconds": 1000.0}, last)
    more = told(2, image=views)
    resumed = finetune(more, shop, towers, folder=tmp_path, resume=str(last), progress=False)
    assert 1000 < resumed.seconds < 1060


def test_workers_serve_a_resumed_run_what_an_unbroken_one_sees(shop, towers, told, tmp_path):
    whole, resumed = unbroken_and_resumed(told(4, workers=1), shop, towers, tmp_path)
    assert curve(resumed, "train/loss") == pytest.approx(curve(whole, "train/loss"), abs=1e-6)


def test_an_epoch_that_compared_nothing_is_no_training(shop, towers, told, tmp_path):
    items = shop.items.copy()
    items["image"] = [
        f"broken {n}".encode() if shop.warm[n] else v for n, v in enumerate(items["image"])
    ]
    catalog = type(shop).from_pandas(items, shop.interactions, config=shop.config)
    what = r"nothing could be compared in epoch 1 \(got 'image of \d+ items unread, \S+: "
    with pytest.raises(DataError, match=what):
        finetune(told(2), catalog, towers, folder=tmp_path, progress=False)


def test_a_catalogue_with_nothing_kept_out_is_told(shop, towers, told, tmp_path, capsys):
    log = shop.interactions.assign(split="train")
    catalog = type(shop).from_pandas(shop.items, log, config=shop.config)
    result = finetune(told(1), catalog, towers, folder=tmp_path)
    assert curve(result, "valid/retrieval") == {}
    assert "note: no item of valid is kept out of training" in capsys.readouterr().err


def test_no_batches_are_no_steps(shop, towers, told, tmp_path):
    config = replace(told(1), trainer={"max_epochs": 1, "limit_train_batches": 0})
    before = weights(towers)
    finetune(config, shop, towers, folder=tmp_path, progress=False)
    for name, value in weights(towers).items():
        assert torch.equal(value, before[name])


def test_gradients_are_clipped_as_they_are_when_half_precision_scales_them(
    shop, towers, told, tmp_path, monkeypatch
):
    bounds = []

    class Scaled(Callback):
        def on_fit_start(self, trainer, module):
            trainer.precision_plugin.scaler = SimpleNamespace(get_scale=lambda: 1024.0)

    def record(self, optimizer, gradient_clip_val, gradient_clip_algorithm):
        bounds.append(gradient_clip_val)

    monkeypatch.setattr(FinetuneModule, "clip_gradients", record)
    given = {"folder": tmp_path, "progress": False}
    finetune(told(1, max_norm=0.5), shop, copy.deepcopy(towers), **given)
    finetune(told(1, max_norm=0.5), shop, towers, callbacks=[Scaled()], **given)
    assert bounds == [0.5, 0.5, 512.0, 512.0]


def test_l2_sp_holds_weights_where_they_were(shop, towers, told, tmp_path):
    start, free = weights(towers), copy.deepcopy(towers)
    finetune(told(4), shop, free, folder=tmp_path / "free", progress=False)
    config = told(4, drift="weights", drift_weight=100.0)
    finetune(config, shop, towers, folder=tmp_path / "held", progress=False)

    def distance(towers):
        rows = weights(towers)
        return sum(float((rows[n] - start[n]).norm()) for n in start if "projection" not in n)

    assert distance(towers) < distance(free) / 2


def test_the_likeness_of_items_is_held(shop, towers, told, tmp_path):
    start, free = copy.deepcopy(towers), copy.deepcopy(towers)
    finetune(told(30), shop, free, folder=tmp_path / "free", progress=False)
    config = told(30, drift="similarity", drift_weight=100.0)
    finetune(config, shop, towers, folder=tmp_path / "held", progress=False)

    def change(towers):
        """From the encoder's own likeness: the new projection on it is random at the start."""
        before = encode_rows(start["text"], shop.texts(), below_projection=True).values
        now = encode_rows(towers["text"], shop.texts()).values
        return float((now @ now.T - before @ before.T).abs().mean())

    assert change(towers) < min(change(free), change(start)) / 2


def test_an_objective_without_interactions_says_so(shop, towers, told, tmp_path):
    catalog = type(shop).from_pandas(shop.items, None, config=shop.config)
    with pytest.raises(ConfigError, match="behaviour needs interactions"):
        finetune(told(1, objectives={"behaviour": 1.0}), catalog, towers, folder=tmp_path)


def test_an_unknown_monitor_names_the_nearest(shop, towers, told, tmp_path):
    config = told(1)
    config = replace(config, training=replace(config.training, monitor="valid/retrievel"))
    with pytest.raises(ConfigError, match="did you mean 'valid/retrieval'"):
        finetune(config, shop, towers, folder=tmp_path, progress=False)


def test_items_are_split_by_their_column_by_the_log_or_by_the_seed(shop):
    train, valid, test = split_items(shop)
    assert np.array_equal(train, np.flatnonzero(shop.warm))
    assert not set(train) & {*valid, *test}
    named = shop.items.assign(split=["valid", "test", *["train"] * (len(shop.items) - 2)])
    catalog = type(shop).from_pandas(named, shop.interactions, config=shop.config)
    assert [part.tolist() for part in split_items(catalog)[1:]] == [[0], [1]]
    bare = type(shop).from_pandas(shop.items, None, config=shop.config)
    parts = split_items(bare, seed=3)
    assert [len(part) for part in parts] == [48, 6, 6]
    assert sorted(np.concatenate(parts)) == list(range(60))


class Forced(Callback):
    """Validation says what it is told; after an epoch the run may be killed."""

    def __init__(self, values, *, killed_after=None):
        self.values, self.killed_after = values, killed_after

    def on_validation_epoch_end(self, trainer, module):
        if not trainer.sanity_checking:
            value = torch.tensor(self.values[trainer.current_epoch])
            trainer.callback_metrics["valid/retrieval"] = value

    def on_train_epoch_start(self, trainer, module):
        if self.killed_after is not None and trainer.current_epoch > self.killed_after:
            raise KeyboardInterrupt


@pytest.mark.parametrize("folder", ["b", "elsewhere"])
def test_a_resumed_run_still_knows_its_best_epoch(shop, towers, told, tmp_path, folder):
    values, killed = [0.5, 0.8, 0.6, 0.55], copy.deepcopy(towers)
    finetune(
        told(4), shop, towers, folder=tmp_path / "a", progress=False, callbacks=[Forced(values)]
    )
    given = {"folder": tmp_path / "b", "progress": False}
    with pytest.raises(TrainingError, match="interrupted"):
        finetune(told(4), shop, killed, callbacks=[Forced(values, killed_after=1)], **given)
    last = str(tmp_path / "b" / "checkpoints" / "last.ckpt")
    given["folder"] = tmp_path / folder
    finetune(told(4), shop, killed, resume=last, callbacks=[Forced(values)], **given)
    for name, value in weights(towers).items():
        assert torch.equal(value, weights(killed)[name])


@pytest.mark.parametrize("drift", ["none", "similarity", "features"])
def test_behaviour_trains_where_few_items_have_a_picture(shop, towers, told, tmp_path, drift):
    items = shop.items.copy()
    items.loc[np.arange(len(items)) % 10 != 0, "image"] = None
    few = type(shop).from_pandas(items, shop.interactions, config=shop.config)
    config = told(2, objectives={"behaviour": 1.0}, batch_size=4, drift=drift, drift_weight=0.1)
    told_of = config.finetune
    towered = {m: replace(told_of.tower(m), dim=None) for m in ("text", "image")}
    for tower in towers.values():
        tower.starts_anew = False
    config = replace(config, finetune=replace(told_of, **towered))
    result = finetune(config, few, towers, folder=tmp_path, progress=False)
    assert all(np.isfinite(value) for value in curve(result, "train/loss").values())


@pytest.mark.parametrize("objective", ["behaviour", "graph"])
def test_a_tower_without_anything_to_read_is_refused(shop, towers, told, tmp_path, objective):
    items = shop.items.copy()
    items.loc[shop.warm, "image"] = None
    none = type(shop).from_pandas(items, shop.interactions, config=shop.config)
    with pytest.raises(DataError, match=f"has image, which the objective {objective} reads"):
        finetune(
            told(1, objectives={objective: 1.0}), none, towers, folder=tmp_path, progress=False
        )


@pytest.mark.parametrize("objective", ["behaviour", "graph"])
def test_items_measured_by_their_column_are_in_no_objective(
    shop, towers, told, tmp_path, objective
):
    """Other content of measured items that users took, same weights: nothing was read."""
    items = shop.items.copy()
    items["split"] = np.where(np.arange(len(items)) % 3 == 0, "test", "train")
    held = items["split"] == "test"
    one = type(shop).from_pandas(items, shop.interactions, config=shop.config)
    items.loc[held, "title"] = "nonsense"
    items.loc[held, "image"] = [b"broken"] * held.sum()
    other = type(shop).from_pandas(items, shop.interactions, config=shop.config)
    changed = copy.deepcopy(towers)
    config = told(2, objectives={objective: 1.0})
    config = replace(config, trainer={"max_epochs": 2, "limit_val_batches": 0})
    finetune(config, one, towers, folder=tmp_path / "a", progress=False)
    finetune(config, other, changed, folder=tmp_path / "b", progress=False)
    for name, value in weights(towers).items():
        assert torch.equal(value, weights(changed)[name])


def test_an_unknown_split_names_the_nearest(shop, towers, told, tmp_path):
    items = shop.items.copy()
    items["split"] = ["train"] * 50 + ["valid"] * 4 + ["tset"] * 6
    wrong = type(shop).from_pandas(items, shop.interactions, config=shop.config)
    with pytest.raises(DataError, match=r"unknown split in row 54 .*tset.*test"):
        finetune(told(1), wrong, towers, folder=tmp_path, progress=False)


class Rates(Callback):
    def __init__(self):
        self.found = []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.found.append(max(group["lr"] for group in trainer.optimizers[0].param_groups))


@pytest.mark.parametrize("limit", [{"max_epochs": 4}, {"max_epochs": -1, "max_steps": 4}])
def test_the_rate_falls_to_the_very_end(shop, towers, told, tmp_path, limit):
    """44 items in batches of 16 are 2 steps an epoch; three at a time, one of the optimizer."""
    rates, config = Rates(), told(4, accumulate=3, warmup=0.0)
    config = replace(config, trainer=limit)
    finetune(config, shop, towers, folder=tmp_path, progress=False, callbacks=[rates])
    expected = [0.02 * (1 + np.cos(np.pi * step / 4)) / 2 for step in range(4)]
    np.testing.assert_allclose(rates.found[::2], expected, rtol=1e-6)


def test_a_run_without_an_end_is_refused(shop, towers, told, tmp_path):
    config = replace(told(1), trainer={"max_epochs": -1})
    with pytest.raises(ConfigError, match="its length has to be known"):
        finetune(config, shop, towers, folder=tmp_path, progress=False)


def test_copies_of_a_picture_are_no_negatives(tmp_path):
    paths = [tmp_path / name for name in ("a.png", "b.png", "c.png")]
    for path, content in zip(paths, [b"same", b"same", b"other"], strict=True):
        path.write_bytes(content)
    keys = [_key(path) for path in paths]
    assert keys[0] == keys[1] == _key(b"same")
    assert keys[2] != keys[0]
    assert _key(tmp_path / "absent.png") == _key(tmp_path / "absent.png")


def test_views_of_a_picture_that_changed_are_made_anew(shop, towers, told, tmp_path, monkeypatch):
    """Interrupted runs in one folder: the same pictures find their views, others do not."""
    made = []

    class Watched(Views):
        def _write(self, path, tower, values):
            made.append(path.name)
            super()._write(path, tower, values)

    class Stop(Callback):
        def on_train_epoch_start(self, trainer, module):
            raise KeyboardInterrupt

    monkeypatch.setattr("mmalign.trainers.finetune.Views", Watched)
    items = shop.items.copy()
    row = np.flatnonzero(shop.warm)[0]
    items.loc[[row], "image"] = [items["image"][row][:-4] + bytes(4)]
    changed = type(shop).from_pandas(items, shop.interactions, config=shop.config)
    config = told(2, image=TowerConfig(views=1))
    for catalog, count in ((shop, 1), (shop, 1), (changed, 2)):
        with pytest.raises(TrainingError, match="interrupted"):
            finetune(config, catalog, towers, folder=tmp_path, progress=False, callbacks=[Stop()])
        assert len(made) == count


def test_a_file_that_changed_has_another_stamp(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"one")
    before = _stamp(path)
    path.write_bytes(b"other")
    assert _stamp(path) != before
