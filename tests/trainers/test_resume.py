from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from mmalign.errors import TrainingError
from mmalign.models.aligned import Aligned, AlignedConfig
from mmalign.models.neural.lightgcn import LightGCN, LightGCNConfig
from mmalign.trainers.resume import describe

ROWS = sp.csr_matrix([[1.0, 0.0, 2.0], [0.0, 1.0, 1.0]])


def described(train=ROWS, valid=ROWS, model=None, seed=0):
    return describe(model or Aligned(AlignedConfig()), train, valid, seed=seed)


def differing(**changes):
    one, two = described(), described(**changes)
    return {name for name in {**one, **two} if one.get(name) != two.get(name)}


def test_each_change_is_named_and_no_other():
    weight, place = ROWS.copy(), ROWS.copy()
    weight.data[0] = 3
    place.indices[0] = 1
    wider = sp.csr_matrix((ROWS.data, ROWS.indices, ROWS.indptr), shape=(2, 4))
    for other in (weight, place, wider):
        assert differing(train=other) == {"train rows"}
        assert differing(valid=other) == {"valid rows"}
    assert differing(seed=1) == {"seed"}
    assert differing(model=Aligned(AlignedConfig(cold_share=0.1))) == {"model.aligned.cold_share"}
    teacher = AlignedConfig(teacher=type(AlignedConfig().teacher)(l2=3.0))
    assert differing(model=Aligned(teacher)) == {"model.aligned.teacher.l2"}
    assert "model.name" in differing(model=LightGCN(LightGCNConfig()))


def test_the_same_rows_in_another_order_of_storage_are_the_same():
    stored = sp.csr_matrix(
        (np.float64([2, 1, 1, 1]), np.int64([2, 0, 1, 2]), np.int64([0, 2, 4])), shape=(2, 3)
    )
    assert (stored != ROWS).nnz == 0
    assert differing(train=stored, valid=stored) == set()


def test_values_are_plain():
    for value in described().values():
        assert isinstance(value, str | int | float | bool | None | list)


def test_a_missing_checkpoint_is_one_line(shop):
    with pytest.raises(TrainingError, match=r"no checkpoint there \(got 'nowhere\.ckpt'\)"):
        shop.train(resume="nowhere.ckpt")


def test_a_damaged_checkpoint_is_one_line(shop):
    run = shop.train(max_epochs=1)
    path = run.folder / "checkpoints" / "last.ckpt"
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(TrainingError, match="cannot read the checkpoint") as caught:
        shop.train(resume=str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"model": {"learning_rate": 0.5}}, r"with model\.aligned\.learning_rate 0\.001 \(got"),
        ({"model": {"embedding_dim": 8}}, r"model\.aligned\.embedding_dim"),
        (
            {"model": {"layer": "gat", "num_layers": 1}},
            r"aligned\.layer lightgcn, model\.aligned\.num_layers 2 ",
        ),
        ({"seed": 3}, r"was trained with seed 0 \(got '.*last\.ckpt'\): resume with"),
    ],
)
def test_a_checkpoint_of_other_settings_names_them(shop, changed, named):
    run = shop.train(max_epochs=1)
    path = str(run.folder / "checkpoints" / "last.ckpt")
    with pytest.raises(TrainingError, match=named) as caught:
        shop.train(max_epochs=2, resume=path, **changed)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_checkpoint_of_other_rows_says_which(shop, log, make_catalog, split):
    run = shop.train(max_epochs=1)
    shop.catalog = make_catalog(log.drop(log.index[log["split"] == split][0]))
    path = str(run.folder / "checkpoints" / "last.ckpt")
    with pytest.raises(TrainingError, match=rf"was trained with other {split} rows \(got"):
        shop.train(max_epochs=2, resume=path)


def test_the_order_of_the_log_is_no_other_split(shop, log, make_catalog):
    run = shop.train(max_epochs=1)
    shop.catalog = make_catalog(log.iloc[::-1])
    path = str(run.folder / "checkpoints" / "last.ckpt")
    assert len(shop.train(max_epochs=2, resume=path).values("train/loss")) == 2


def test_a_checkpoint_of_other_content_is_one_line(shop):
    run = shop.train(max_epochs=1)
    path = run.folder / "checkpoints" / "last.ckpt"
    features = shop.features
    shop.features = {"group": features["group"]}
    with pytest.raises(TrainingError, match="not one of this model on this data"):
        shop.train(resume=str(path))
    shop.features = features
    stored = torch.load(path, weights_only=True)
    torch.save({k: v for k, v in stored.items() if k != "mmalign"}, path)
    with pytest.raises(TrainingError, match="not one of this model on this data"):
        shop.train(resume=str(path))


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_checkpoint_runs_no_code(shop, tmp_path):
    torch.save({"state_dict": Bomb(str(tmp_path / "ran"))}, tmp_path / "bomb.ckpt")
    with pytest.raises(TrainingError, match="cannot read the checkpoint"):
        shop.train(resume=str(tmp_path / "bomb.ckpt"))
    assert not (tmp_path / "ran").exists()


def test_every_checkpoint_is_loaded_with_weights_only(shop, monkeypatch):
    run = shop.train(max_epochs=1)
    real, said = torch.load, []

    def load(*args, **options):
        said.append(options.get("weights_only"))
        return real(*args, **options)

    monkeypatch.setattr(torch, "load", load)
    shop.train(max_epochs=2, resume=str(run.folder / "checkpoints" / "last.ckpt"))
    assert said == [True] * len(said)
    assert len(said) >= 3  # looked at, resumed from, and the best at the end
