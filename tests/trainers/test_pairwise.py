from __future__ import annotations

import csv

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from lightning.pytorch import Callback

from mmalign.config import from_dict
from mmalign.errors import ConfigError, TrainingError
from mmalign.evaluation.protocol import evaluate
from mmalign.experiment import ExperimentConfig
from mmalign.interfaces import SLICES
from mmalign.models import MODELS, ModelConfig, TrainData
from mmalign.models.neural.base import NeuralModel
from mmalign.models.neural.lightgcn import LightGCN, LightGCNConfig
from mmalign.models.popularity import RandomConfig, RandomModel
from mmalign.trainers.fit import fit
from mmalign.trainers.pairwise import PairwiseModule
from mmalign.trainers.validation import monitors

NEURAL = sorted(name for name, model in MODELS.items() if issubclass(model, NeuralModel))


def run(shop, name, *, epochs=3, every=1, folder="run", settings=None, training=None, **more):
    model = {"embedding_dim": 16, "batch_size": 128, "learning_rate": 0.01, **(settings or {})}
    values = {
        "model": {"name": name, name: model},
        "training": training or {},
        "trainer": {
            "max_epochs": epochs,
            "check_val_every_n_epoch": every,
            "accelerator": "cpu",
        },
    }
    features = shop.features if MODELS[name].uses_content else {}
    config = from_dict(ExperimentConfig, values)
    return fit(config, shop.catalog, features, folder=shop.folder / folder, progress=False, **more)


def interrupt(monkeypatch, step):
    real, pending = PairwiseModule.training_step, [KeyboardInterrupt]

    def training_step(self, batch, batch_idx):
        if self.global_step == step and pending:
            raise pending.pop()
        return real(self, batch, batch_idx)

    monkeypatch.setattr(PairwiseModule, "training_step", training_step)


QUICK = ("lightgcn",)
"""Of which the quality is measured in the fast suite."""


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NEURAL],
)
def test_every_model_finds_the_planted_tastes(shop, name):
    # Two that learn against each other take smaller steps: at 0.02 GAR swings from seed to seed.
    rate, epochs = (0.01, 80) if name == "gar" else (0.02, 40)
    settings = {"learning_rate": rate}
    if hasattr(getattr(ModelConfig(), name), "factors"):
        settings["factors"] = {"l2": 1.0}  # the default is for hundreds of users, not for fifty
    result = run(shop, name, epochs=epochs, every=epochs, settings=settings)
    found = evaluate(result.model, shop.catalog, "test", ks=(10,)).metrics
    chance = evaluate(RandomModel(RandomConfig()), shop.catalog, "test", ks=(10,)).metrics
    assert found["warm"]["ndcg@10"] > 1.6 * chance["warm"]["ndcg@10"]
    if result.model.serves_cold:
        assert found["cold"]["ndcg@10"] > 1.15 * chance["cold"]["ndcg@10"]


def test_the_same_seed_gives_the_same_model(shop):
    first, again = run(shop, "freedom", folder="first"), run(shop, "freedom", folder="again")
    assert first.curve == again.curve
    for name, array in first.model.arrays().items():
        np.testing.assert_array_equal(array, again.model.arrays()[name], err_msg=name)


def test_interrupted_and_resumed_is_as_if_never_interrupted(shop, monkeypatch):
    unbroken = run(shop, "freedom", epochs=4, folder="unbroken")
    with monkeypatch.context() as patch:
        interrupt(patch, step=9)
        with pytest.raises(TrainingError, match=r"go on with --ckpt_path .*last\.ckpt"):
            run(shop, "freedom", epochs=4, folder="broken")
    last = shop.folder / "broken" / "checkpoints" / "last.ckpt"
    resumed = run(shop, "freedom", epochs=4, folder="broken", resume=str(last))
    assert unbroken.curve == resumed.curve
    np.testing.assert_array_equal(unbroken.model.vectors, resumed.model.vectors)


def test_the_graph_is_thinned_anew_each_epoch(shop, monkeypatch):
    thinned = []
    real = MODELS["freedom"].begin_epoch

    def begin_epoch(self, rng):
        real(self, rng)
        thinned.append(self.thinned.csr.toarray())

    monkeypatch.setattr(MODELS["freedom"], "begin_epoch", begin_epoch)
    run(shop, "freedom", epochs=2)
    assert len(thinned) == 2
    assert (thinned[0] != thinned[1]).any()


def test_slices_that_the_model_serves_are_logged(shop):
    warm_only, both = run(shop, "lightgcn", folder="one"), run(shop, "vbpr", folder="two")
    warm, every = set(monitors(["warm"])), set(monitors(SLICES))
    logged = {point.name for point in warm_only.curve if point.name.startswith("valid/")}
    assert logged == warm
    logged = {point.name for point in both.curve if point.name.startswith("valid/")}
    assert logged == every
    one = {p.epoch: p.value for p in warm_only.curve if p.name == "valid/warm_ndcg@20"}
    mean = {p.epoch: p.value for p in warm_only.curve if p.name == "valid/ndcg@20"}
    assert one == pytest.approx(mean)


def test_losses_are_logged_by_name(shop):
    run(shop, "lightgcn", epochs=1)
    with open(shop.folder / "run" / "csv" / "version_0" / "metrics.csv", encoding="utf-8") as file:
        (row,) = (r for r in csv.DictReader(file) if r["train/loss"])
    assert float(row["train/loss"]) == pytest.approx(
        float(row["train/bpr"]) + float(row["train/l2"]), rel=1e-5
    )


def test_a_metric_of_a_slice_that_is_not_served_cannot_be_watched(shop):
    with pytest.raises(ConfigError, match=r"training\.monitor"):
        run(shop, "lightgcn", training={"monitor": "valid/cold_ndcg@20"})


def test_the_best_validated_weights_are_the_ones_that_rank(shop, monkeypatch):
    found = iter([0.1, 0.5, 0.4, 0.3])
    vectors = []

    def validate(self):
        self._model.freeze(self._data)
        vectors.append(self._model.vectors.copy())
        self.log("valid/ndcg@20", next(found))

    monkeypatch.setattr(PairwiseModule, "on_validation_epoch_end", validate)
    result = run(shop, "lightgcn", epochs=4)
    np.testing.assert_array_equal(result.model.vectors, vectors[1])


def test_callbacks_see_training(shop):
    class Watch(Callback):
        def __init__(self):
            self.seen = []

        def on_validation_end(self, trainer, pl_module):
            self.seen.append(float(trainer.callback_metrics["valid/warm_ndcg@20"]))

    class Prune(Callback):
        def on_validation_end(self, trainer, pl_module):
            raise LookupError("pruned")

    watch = Watch()
    result = run(shop, "lightgcn", epochs=2, callbacks=[watch])
    logged = [p.value for p in result.curve if p.name == "valid/warm_ndcg@20"]
    assert watch.seen == pytest.approx(logged)
    with pytest.raises(LookupError, match="pruned"):
        run(shop, "lightgcn", epochs=2, callbacks=[Prune()])


def test_a_loss_that_is_not_finite_is_one_line(shop, monkeypatch):
    monkeypatch.setattr(LightGCN, "loss", lambda *_: {"bpr": torch.tensor(torch.nan)})
    with pytest.raises(TrainingError, match="loss is not finite") as caught:
        run(shop, "lightgcn", epochs=1)
    assert "\n" not in str(caught.value)


def test_nothing_cold_is_trained_on(shop, monkeypatch):
    """Of each batch, items and negatives are warm, and negatives are not the user's."""
    batches = []
    real = LightGCN.loss

    def loss(self, batch):
        batches.append(batch)
        return real(self, batch)

    monkeypatch.setattr(LightGCN, "loss", loss)
    run(shop, "lightgcn", epochs=2, settings={"negatives": 3})
    matrix = shop.catalog.matrix("train")
    data = TrainData(matrix, {})
    taken = sp.csr_matrix(matrix[:, data.warm]).toarray() > 0
    assert sum(len(batch.users) for batch in batches) == 2 * matrix.nnz
    for batch in batches:
        users = batch.users.numpy()
        assert taken[users, batch.positives.numpy()].all()
        assert not taken[users[:, None], batch.negatives.numpy()].any()


def test_negatives_differ_by_seed_and_process(shop, monkeypatch):
    """Processes that drew alike would together see the negatives of one."""
    matrix = shop.catalog.matrix("train")
    data = TrainData(matrix, {})
    model = LightGCN(LightGCNConfig(embedding_dim=4, negatives=8)).fit(data)
    drawn = []
    monkeypatch.setattr(
        model, "loss", lambda batch: drawn.append(batch.negatives) or {"bpr": torch.tensor(0.0)}
    )
    monkeypatch.setattr(PairwiseModule, "log", lambda *_, **__: None)
    batch = torch.zeros((4, 2), dtype=torch.long)
    for seed, rank in ((0, 0), (0, 0), (0, 1), (1, 0)):
        monkeypatch.setattr(PairwiseModule, "global_rank", rank)
        PairwiseModule(model, data, shop.catalog, seed=seed).training_step(batch, 0)
    first, again, other, later = drawn
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, later)
