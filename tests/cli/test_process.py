from __future__ import annotations

import pytest

from mmalign.cli.process import process_number


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "SLURM_PROCID"])
@pytest.mark.parametrize(
    ("trainer", "number"),
    [
        ({}, 0),
        ({"devices": 1}, 0),
        ({"devices": [3]}, 0),
        ({"devices": "3,"}, 0),
        ({"devices": 2}, 1),
        ({"devices": "2"}, 1),
        ({"devices": [0, 1]}, 1),
        ({"devices": 1, "num_nodes": 2}, 1),
    ],
)
def test_a_number_counts_where_several_processes_train(monkeypatch, name, trainer, number):
    monkeypatch.setenv(name, "1")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert process_number(trainer) == number


def test_a_device_of_many_is_named_by_all(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert process_number({}) == process_number({"devices": -1}) == 3
