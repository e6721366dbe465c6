from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from mmalign.benchmark.inputs import Digest, read_features, write_features
from mmalign.benchmark.plan import Job, make_plan, measure_job, tune_job
from mmalign.config import from_dict, to_dict
from mmalign.data.catalog import Catalog
from mmalign.data.config import DataConfig
from mmalign.errors import ConfigError, DataError
from mmalign.experiment import EvaluationConfig
from mmalign.interfaces import Feature

CONTENT = {"ridge": ("group",), "aligned": ("group",)}
DATA = Digest("d", {"group": "g"})


def test_every_model_runs_or_says_why_not(make_config, catalog):
    plan = make_plan(make_config(reference="ease"), catalog, DATA, {})
    assert "ease" in plan.modalities
    assert plan.not_run["ridge"].startswith("it needs content")
    assert not set(plan.modalities) & set(plan.not_run)


def test_a_reference_that_cannot_run_is_told_before_hours_are_spent(make_config, catalog):
    with pytest.raises(ConfigError, match="reference aligned cannot run"):
        make_plan(make_config(reference="aligned"), catalog, DATA, {})


def test_before_anything_is_encoded_models_of_content_have_what_data_names(make_config, catalog):
    config = make_config(models=["ease", "ridge"], reference="ridge")
    text = replace(config, data=DataConfig(text=("title",)))
    assert list(make_plan(text, catalog).modalities) == ["ease", "ridge"]
    with pytest.raises(ConfigError, match="reference ridge cannot run"):
        make_plan(replace(config, data=DataConfig()), catalog)


def test_where_valid_is_cold_models_of_warm_items_do_not_run(make_config, catalog):
    log = catalog.interactions
    warm = log["item_id"].isin(log.loc[log["split"] == "train", "item_id"])
    cold = Catalog.from_pandas(catalog.items, log[(log["split"] != "valid") | ~warm])
    plan = make_plan(make_config(models=["ease", "aligned"]), cold, DATA, CONTENT)
    assert list(plan.modalities) == ["aligned"]
    assert plan.not_run == {"ease": "it ranks warm items alone, and nobody has a valid row of one"}


def test_only_models_of_content_get_content(make_config, catalog):
    config = make_config(models=["ease", "ridge", "aligned"])
    plan = make_plan(config, catalog, DATA, {**CONTENT, "ease": ("group",)})
    assert plan.modalities == {"ease": (), "ridge": ("group",), "aligned": ("group",)}


def test_nothing_to_measure(make_config, catalog):
    log = catalog.interactions
    for split in ("valid", "test"):
        less = Catalog.from_pandas(catalog.items, log[log["split"] != split])
        with pytest.raises(DataError, match=f"nobody has a {split} row"):
            make_plan(make_config(), less, DATA, {})
    with pytest.raises(ConfigError, match="monitor"):
        make_plan(make_config(monitor="ndcg"), catalog, DATA, {})


def test_a_job_survives_json(make_config, catalog):
    plan = make_plan(make_config(search={"ridge": {"l2": None}}), catalog, DATA, CONTENT)
    for job in (tune_job(plan, "ridge"), measure_job(plan, "ridge", {"regularization": 3}, 1)):
        assert from_dict(Job, json.loads(json.dumps(to_dict(job)))) == job


def test_a_run_has_its_settings_and_seed(make_config, catalog):
    plan = make_plan(make_config(), catalog, DATA, CONTENT)
    job = measure_job(plan, "ridge", {"l2": 7.0}, 3)
    assert (job.model, job.config.seed, job.config.model.ridge.l2) == ("ridge", 3, 7.0)
    assert measure_job(plan, "random", {}, 3).config.model.random.seed == 3


def test_keys_change_with_what_decides_and_with_nothing_else(make_config, catalog):
    plan = make_plan(make_config(), catalog, DATA, CONTENT)
    key = measure_job(plan, "ridge", {"l2": 7.0}, 0).key
    assert key == measure_job(plan, "ridge", {"l2": 7.0}, 0).key
    others = [
        measure_job(plan, "ridge", {"l2": 8.0}, 0),
        measure_job(plan, "ridge", {"l2": 7.0}, 1),
        measure_job(plan, "ease", {"l2": 7.0}, 0),
        measure_job(replace(plan, data=Digest("e", DATA.features)), "ridge", {"l2": 7.0}, 0),
        measure_job(replace(plan, data=Digest("d", {"group": "h"})), "ridge", {"l2": 7.0}, 0),
        tune_job(plan, "ridge"),
    ]
    assert len({key, *(job.key for job in others)}) == 7
    beside = replace(plan, data=Digest("d", {"group": "g", "text": "t"}))
    assert measure_job(beside, "ridge", {"l2": 7.0}, 0).key == key  # it does not read the text
    more = make_plan(make_config(trials=9, seeds=[4], samples=999), catalog, DATA, CONTENT)
    assert tune_job(more, "ridge").key == tune_job(plan, "ridge").key
    assert measure_job(more, "ridge", {"l2": 7.0}, 0).key == key
    cut = replace(plan, config=replace(plan.config, evaluation=EvaluationConfig((5,))))
    assert tune_job(cut, "ridge").key == tune_job(plan, "ridge").key
    assert measure_job(cut, "ridge", {"l2": 7.0}, 0).key != key
    seen = replace(plan.config, evaluation=EvaluationConfig(exclude_seen=("train",)))
    assert tune_job(replace(plan, config=seen), "ridge").key != tune_job(plan, "ridge").key
    longer = replace(plan, config=replace(plan.config, trainer={"max_epochs": 77}))
    assert tune_job(longer, "ridge").key == tune_job(plan, "ridge").key
    assert tune_job(longer, "aligned").key != tune_job(plan, "aligned").key
    warm = make_plan(make_config(monitor="valid/warm_ndcg@20"), catalog, DATA, CONTENT)
    assert tune_job(warm, "ease").key == tune_job(plan, "ease").key
    assert tune_job(warm, "ridge").key != tune_job(plan, "ridge").key
    for k, is_same in ((10, True), (20, True), (5, False)):  # both of the protocol, and another
        other = make_plan(make_config(monitor=f"valid/ndcg@{k}"), catalog, DATA, CONTENT)
        assert (measure_job(other, "ridge", {"l2": 7.0}, 0).key == key) == is_same
    wider = make_config(search={"ridge": {"l2": {"low": 1, "high": 2}}})
    assert (
        tune_job(make_plan(wider, catalog, DATA, CONTENT), "ridge").key
        != tune_job(plan, "ridge").key
    )


def test_keys_change_with_the_version_of_the_code(make_config, catalog, monkeypatch):
    plan = make_plan(make_config(), catalog, DATA, CONTENT)
    before = tune_job(plan, "ridge").key
    monkeypatch.setattr("mmalign.benchmark.plan.CODE_VERSION", -1)
    assert tune_job(plan, "ridge").key != before


def test_the_digest_sees_all_of_the_data(catalog, features):
    log = catalog.interactions
    moved = log.copy()
    moved.loc[0, "split"] = "test" if moved.loc[0, "split"] != "test" else "valid"
    lists = sp.eye_array(catalog.num_items, k=1, format="csr")
    other = {"group": Feature(features["group"].values + 1, features["group"].present)}
    absent = {"group": Feature(features["group"].values, np.arange(catalog.num_items) > 0)}
    digests = [
        Digest.of(catalog, features),
        Digest.of(catalog, {}),
        Digest.of(catalog, other),
        Digest.of(catalog, absent),
        Digest.of(Catalog.from_pandas(catalog.items, moved), features),
        Digest.of(Catalog.from_pandas(catalog.items[::-1], log), features),
        Digest.of(Catalog.from_pandas(catalog.items, log.assign(timestamp=7)), features),
        Digest.of(Catalog.from_pandas(catalog.items, log.assign(timestamp=8)), features),
        Digest.of(replace(catalog, neighbours={"text": lists}), features),
        Digest.of(replace(catalog, neighbours={"image": lists}), features),
        Digest.of(replace(catalog, neighbours={"text": 2 * lists}), features),
    ]
    assert len({tuple(found.read_by(found.features)) for found in digests}) == 11
    again = Catalog.from_pandas(pd.DataFrame(catalog.items), log.copy())
    assert Digest.of(again, features) == digests[0]


def test_features_are_read_by_name(features, tmp_path):
    more = {**features, "text.a": Feature(features["group"].values * 2, features["group"].present)}
    write_features(more, tmp_path / "f")
    read = read_features(tmp_path / "f", ["text.a"])
    assert list(read) == ["text.a"]
    assert (read["text.a"].values == more["text.a"].values).all()
    assert read["text.a"].present.dtype == bool
