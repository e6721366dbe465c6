"""A batch of the tiny shop, and what its models are compared with."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse as sp

from mmalign.models.neural.base import Triplets


@pytest.fixture
def batch():
    """Interactions of the shop with one negative each."""
    return Triplets(
        torch.tensor([0, 4, 0, 7]), torch.tensor([0, 4, 3, 7]), torch.tensor([[5], [6], [1], [2]])
    )


@pytest.fixture
def wide():
    """The same with three negatives each."""
    negatives = torch.tensor([[5, 1, 9], [6, 6, 0], [1, 2, 8], [2, 3, 4]])
    return Triplets(torch.tensor([0, 4, 0, 7]), torch.tensor([0, 4, 3, 7]), negatives)


def gradients(loss, module):
    """Names of the parameters that a loss moves."""
    named = dict(module.named_parameters())
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True, retain_graph=True)
    return {n for n, g in zip(named, found, strict=True) if g is not None and g.abs().sum() > 0}


def rounds(matrix, users, items, count):
    """LightGCN by dense matrices: the mean over rounds of users and of items."""
    dense = np.asarray(sp.csr_matrix(matrix).todense(), float)
    by_user, by_item = dense.sum(axis=1), dense.sum(axis=0)
    scale = np.sqrt(np.outer(by_user, by_item))
    normal = np.divide(dense, scale, out=np.zeros_like(dense), where=scale > 0)
    user_sum, item_sum = users.copy(), items.copy()
    for _ in range(count):
        users, items = normal @ items, normal.T @ users
        user_sum, item_sum = user_sum + users, item_sum + items
    return user_sum / (count + 1), item_sum / (count + 1)
