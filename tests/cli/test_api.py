from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest
import yaml
from lightning.pytorch import Callback

import mmalign
from mmalign.config import from_dict
from mmalign.data import Catalog, DataConfig
from mmalign.errors import ConfigError, DataError
from mmalign.experiment import ExperimentConfig
from mmalign.recommender import Recommender


@pytest.fixture
def mmalign_cli(mmalign):
    return mmalign


@pytest.mark.parametrize("kind", ["file", "values", "config"])
def test_fit_makes_what_the_command_line_makes(house, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    values = yaml.safe_load(house.everything.read_text())
    config = {
        "file": house.everything,
        "values": values,
        "config": from_dict(ExperimentConfig, values),
    }[kind]
    recommender = mmalign.fit(config, progress=False)
    known = Recommender.from_pretrained(house.art)
    pd.testing.assert_frame_equal(recommender.recommend(k=5), known.recommend(k=5))
    assert recommender.measured == known.measured


def test_add_items_appends_what_the_command_line_appends(house, items, tmp_path, mmalign_cli):
    new = items.head(3).assign(item_id=["n1", "n2", "n3"])
    recommender = Recommender.from_pretrained(house.art)
    assert mmalign.add_items(recommender, new, progress=False) == 3
    new.to_csv(tmp_path / "new.csv", index=False)
    mmalign_cli("add-items", house.art, tmp_path / "new.csv", "--output", tmp_path / "added")
    known = Recommender.from_pretrained(tmp_path / "added")
    pd.testing.assert_frame_equal(recommender.recommend(k=99), known.recommend(k=99))
    again = new.assign(item_id=["m1", "m2", "m3"])
    with pytest.warns(UserWarning, match="none of the 2 pictures"):
        mmalign.add_items(recommender, again, tmp_path, progress=False)


def test_fit_names_the_nearest_key(house):
    with pytest.raises(ConfigError, match="did you mean 'path'"):
        mmalign.fit({"data": {"pth": str(house.shop)}})


def test_fit_refuses_a_trainer_key_before_anything_is_read():
    for model in ("ease", "aligned"):
        with pytest.raises(ConfigError, match=r"unknown key 'trainer\.max_epoch'.*'max_epochs'"):
            mmalign.fit({"trainer": {"max_epoch": 3}, "model": {"name": model}})


def test_what_is_offered_is_loaded_on_demand():
    assert mmalign.Recommender is Recommender
    assert set(mmalign.__all__) == set(dir(mmalign))
    with pytest.raises(AttributeError, match="no attribute 'recommender_'"):
        mmalign.recommender_  # noqa: B018
    code = (
        "import sys, mmalign; dir(mmalign); print(*sorted({'numpy', 'torch'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []


def test_fit_takes_a_catalogue_and_callbacks(house, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = from_dict(ExperimentConfig, yaml.safe_load(house.attributes.read_text()))
    catalog = Catalog.read(config.data)
    unnamed = replace(config, data=DataConfig(), model=replace(config.model, name="aligned"))

    class Counted(Callback):
        epochs = 0

        def on_train_epoch_end(self, *_):
            self.epochs += 1

    counted = Counted()
    found = mmalign.fit(unnamed, catalog=catalog, callbacks=[counted], progress=False)
    assert counted.epochs == config.trainer["max_epochs"]
    assert found.config.data.attributes == config.data.attributes
    assert found.item_ids.tolist() == catalog.item_ids.tolist()


def test_new_items_are_a_frame(house):
    with pytest.raises(DataError, match="must be a pandas frame"):
        mmalign.add_items(Recommender.from_pretrained(house.art), {"item_id": ["x"]})
