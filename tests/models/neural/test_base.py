from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from mmalign.errors import ConfigError
from mmalign.models import TrainData
from mmalign.models.neural.base import FEW, Triplets, pair_scores, squared_norm
from mmalign.models.neural.lightgcn import LightGCN, LightGCNConfig


@pytest.mark.parametrize("count", [1, 5, FEW + 1])
def test_pair_scores_are_inner_products_with_the_same_gradient(count):
    torch.manual_seed(0)
    users = torch.randn(4, 3, requires_grad=True)
    items = torch.randn(6, 3, requires_grad=True)
    batch = Triplets(
        torch.tensor([2, 0, 2, 3, 2]), torch.tensor([1, 5, 1, 0, 4]), torch.randint(6, (5, count))
    )
    weight = torch.randn(5, 1 + count)

    def by_loops():
        rows = []
        for user, positive, negatives in zip(
            batch.users, batch.positives, batch.negatives, strict=True
        ):
            near = [positive, *negatives]
            rows.append(torch.stack([users[user] @ items[item] for item in near]))
        return torch.stack(rows)

    positive, negative = pair_scores(users, items, batch)
    found, expected = torch.cat([positive[:, None], negative], dim=1), by_loops()
    torch.testing.assert_close(found, expected)
    for one, other in zip(
        torch.autograd.grad((found * weight).sum(), (users, items)),
        torch.autograd.grad((expected * weight).sum(), (users, items)),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_squared_norm_is_half_the_sum_over_tensors_and_a_mean_over_rows():
    left, right = torch.tensor([[1.0, 2.0], [0.0, 2.0]]), torch.tensor([[3.0], [1.0]])
    assert squared_norm(left, right).item() == pytest.approx((1 + 4 + 4 + 9 + 1) / 2 / 2)


@pytest.mark.parametrize("name", ["embedding_dim", "learning_rate", "batch_size", "negatives"])
def test_numbers_must_be_positive(name):
    with pytest.raises(ConfigError, match=f"{name} must be positive"):
        LightGCNConfig(**{name: 0})


def test_a_train_user_is_ranked_by_the_vector_of_training_and_a_stranger_is_not_refused(shop):
    data = TrainData(shop.matrix, {})
    model = LightGCN(LightGCNConfig(embedding_dim=8)).fit(data)
    users, items = model.embed()
    expected = (users[:3] @ items.T).detach().numpy()
    found = model.score(shop.matrix[:3], np.flatnonzero(data.warm))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    more = sp.lil_matrix(shop.matrix[:1])
    more[0, int(np.flatnonzero(shop.matrix[0].toarray()[0] == 0)[0])] = 1
    assert not np.allclose(model.score(more.tocsr(), np.flatnonzero(data.warm))[0], found[0])


def test_a_warm_only_model_gives_cold_items_zero(shop):
    model = LightGCN(LightGCNConfig(embedding_dim=8)).fit(TrainData(shop.matrix, {}))
    assert not model.score(shop.matrix, np.arange(10, 14)).any()
