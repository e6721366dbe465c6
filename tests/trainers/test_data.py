from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from mmalign.models.base import TrainData
from mmalign.trainers.data import InteractionDataModule, UserDataModule


def batches(count, size=4, seed=0, epoch=0, process=0, processes=1, silent=()):
    """Batches of one process; the users ``silent`` have no train row."""
    active = np.ones(count, np.float32)
    active[list(silent)] = 0
    data = TrainData(sp.csr_matrix(active[:, None]), {})
    module = UserDataModule(data, batch_size=size, seed=seed)
    module.trainer = SimpleNamespace(world_size=processes, global_rank=process)
    loader = module.train_dataloader()
    loader.sampler.set_epoch(epoch)
    found = [batch.tolist() for batch in loader]
    assert len(loader) == len(found)
    return found


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 4))
def test_every_user_comes_once_per_epoch_to_one_process(count, size, processes):
    shares = [batches(count, size, process=p, processes=processes) for p in range(processes)]
    steps = {len(share) for share in shares}
    assert len(steps) == 1  # unequal numbers of steps would wait for each other for ever
    parts = [part for share in shares for part in share]
    assert all(1 <= len(part) <= size for part in parts)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    users = sorted(user for part in parts for user in part)
    if count >= len(parts):
        assert users == list(range(count))
    else:  # fewer users than processes: somebody comes twice, and nobody is left out
        assert set(users) == set(range(count))


def test_two_processes_together_take_the_steps_of_one_with_twice_the_batch():
    whole = batches(50, size=10)
    left, right = (batches(50, size=5, process=p, processes=2) for p in (0, 1))
    for step, first, second in zip(whole, left, right, strict=True):
        assert sorted(step) == sorted(first + second)


def test_the_order_is_a_function_of_seed_and_epoch():
    assert batches(30, seed=1, epoch=2) == batches(30, seed=1, epoch=2)
    assert batches(30, seed=1, epoch=2) != batches(30, seed=1, epoch=3)
    assert batches(30, seed=1, epoch=2) != batches(30, seed=2, epoch=2)


def test_a_user_without_a_train_row_never_comes():
    assert sorted(user for part in batches(6, silent=[0, 4]) for user in part) == [1, 2, 3, 5]


def test_validation_is_one_step(rng):
    module = UserDataModule(TrainData(sp.csr_matrix(np.eye(3)), {}), batch_size=2, seed=0)
    assert len(list(module.val_dataloader())) == 1


def test_without_a_trainer_there_is_one_process():
    module = UserDataModule(TrainData(sp.csr_matrix(np.eye(3)), {}), batch_size=2, seed=0)
    assert sum(len(batch) for batch in module.train_dataloader()) == pytest.approx(3)


def interactions(process=0, processes=1, epoch=0):
    """Pairs of one process; the items 1 and 4 are cold, so warm ones count from 0 to 2."""
    dense = np.array([[2, 0, 1, 0, 0], [0, 0, 0, 0, 0], [1, 0, 0, 3, 0]], np.float32)
    module = InteractionDataModule(TrainData(sp.csr_matrix(dense), {}), batch_size=2, seed=3)
    module.trainer = SimpleNamespace(world_size=processes, global_rank=process)
    loader = module.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return [batch.tolist() for batch in loader]


def test_interactions_come_once_per_epoch_with_items_counted_among_the_warm():
    pairs = [tuple(pair) for batch in interactions() for pair in batch]
    assert sorted(pairs) == [(0, 0), (0, 1), (2, 0), (2, 2)]
    halves = [interactions(process, 2) for process in (0, 1)]
    assert [len(half) for half in halves] == [1, 1]
    assert sorted(tuple(p) for half in halves for batch in half for p in batch) == sorted(pairs)


def test_the_order_of_interactions_is_a_function_of_the_epoch():
    orders = [interactions(epoch=epoch) for epoch in range(6)]
    assert orders == [interactions(epoch=epoch) for epoch in range(6)]
    assert any(order != orders[0] for order in orders)
