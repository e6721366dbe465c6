from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from mmalign.objectives.alignment import LearnedTemperature
from mmalign.trainers.finetuning.graph import GraphContrast
from mmalign.trainers.finetuning.halves import Half


class Scale:
    temperature = LearnedTemperature(0.1)


def test_the_memory_holds_what_all_processes_encoded(shop, towers, monkeypatch):
    matrix = shop.matrix("train")
    objective = GraphContrast("text", 1.0, matrix, towers["text"], shop.texts(), seed=0)
    drawn = objective.draw(0, 5)[:, 0]
    fresh = F.normalize(torch.randn(5, 16), dim=1)

    def gather(rows):
        """Two items are of this process, three of another."""
        others = fresh[2:] if rows.is_floating_point() else torch.from_numpy(drawn[2:])
        return torch.cat([rows, others]), 0

    monkeypatch.setattr("mmalign.trainers.finetuning.graph.gather_rows", gather)
    mine = Half("text", [], [], positions=np.arange(2), rows=drawn[:2], keys=drawn[:2])
    objective.loss(Scale(), [fresh[:2]], [mine])
    torch.testing.assert_close(objective.memory[drawn], fresh)
    assert objective.age[drawn].tolist() == [0] * 5
    assert objective.age.sum() == len(objective.age) - 5


def test_the_interaction_that_is_asked_for_passes_no_message(shop, towers):
    matrix = shop.matrix("train")
    objective = GraphContrast("text", 1.0, matrix, towers["text"], shop.texts(), seed=0)
    rows = objective.draw(0, 8)[:, 0]
    users, messages = objective._ask(rows)
    pairs = set(zip(users.tolist(), rows.tolist(), strict=True))
    assert all(matrix[pair] > 0 and messages[pair] == 0 for pair in pairs)
    assert messages.nnz == matrix.nnz - len(pairs)


def test_items_are_asked_for_as_often_as_they_are_taken(shop, towers):
    matrix = shop.matrix("train")
    objective = GraphContrast("text", 1.0, matrix, towers["text"], shop.texts(), seed=0)
    count = matrix.getnnz(axis=0)
    expected = np.log(count[count > 0] / matrix.nnz)
    np.testing.assert_allclose(objective._log_q.numpy()[count > 0], expected, rtol=1e-6)
