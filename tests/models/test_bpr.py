"""BPR's step against autograd, its fold-in against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.linear_model import Ridge

from mmalign.errors import ConfigError
from mmalign.models import TrainData
from mmalign.models.bpr import BPR, BPRConfig, _step, bpr_factors


def test_a_step_is_the_gradient_of_the_loss() -> None:
    """Users and items come back within the batch, so that their gradients must add up."""
    generator = torch.Generator().manual_seed(0)
    users, items, bias = (
        torch.randn(shape, generator=generator) for shape in ((3, 4), (5, 4), (5,))
    )
    triples = torch.tensor([[0, 1, 0, 2], [1, 1, 3, 0], [2, 4, 1, 2]])
    u, i, j = triples
    leaves = [x.clone().requires_grad_() for x in (users, items, bias)]
    x, y, b = leaves
    margin = (x[u] * (y[i] - y[j])).sum(1) + b[i] - b[j]
    read = [x[u], y[i], y[j], b[i], b[j]]
    loss = -torch.nn.functional.logsigmoid(margin).sum()
    loss = loss + 0.3 / 2 * sum((part**2).sum() for part in read)
    loss.backward()
    expected = [leaf.detach() - 0.1 * leaf.grad for leaf in leaves]  # type: ignore[operator]
    _step(users, items, bias, triples, learning_rate=0.1, l2=0.3)
    for found, wanted in zip((users, items, bias), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_users_are_regressed_on_their_histories(shop: TrainData) -> None:
    config = BPRConfig(embedding_dim=4, epochs=5, fold_in=3.0)
    users, items, bias = bpr_factors(shop.matrix[:, :10], config)
    model = BPR(config).fit(shop)
    history = shop.matrix.toarray()[:, :10]
    peer = Ridge(alpha=3.0, fit_intercept=False).fit(history, users)
    expected = peer.predict(history) @ items.T + bias
    scores = model.score(shop.matrix, np.arange(14))
    np.testing.assert_allclose(scores[:, :10], expected, atol=1e-4)
    assert not scores[:, 10:].any()


def test_no_taken_item_is_a_negative() -> None:
    """A user who took all but one item: the one is the only negative, so it falls alone."""
    taken = np.ones((4, 5), np.float32)
    taken[:, 3] = 0
    shop = TrainData(matrix_of(taken), {})
    _, _, bias = bpr_factors(shop.matrix, BPRConfig(embedding_dim=2, epochs=20))
    assert bias[3] < 0
    assert (np.delete(bias, 3) > 0).all()


def matrix_of(dense: np.ndarray) -> sp.csr_matrix:  # type: ignore[type-arg]
    return sp.csr_matrix(dense)


def test_users_who_took_everything_leave_nothing_to_learn() -> None:
    _, _, bias = bpr_factors(matrix_of(np.ones((30, 4))), BPRConfig(embedding_dim=2, epochs=2))
    assert not bias.any()


def test_the_seed_decides(shop: TrainData) -> None:
    one, other = (BPR(BPRConfig(epochs=1, seed=seed)).fit(shop) for seed in (0, 1))
    assert (one.factors != other.factors).any()


def test_impossible_settings() -> None:
    for name in ("embedding_dim", "learning_rate", "epochs", "batch_size", "fold_in"):
        with pytest.raises(ConfigError, match=f"{name} must be positive"):
            BPRConfig(**{name: 0})
    with pytest.raises(ConfigError, match="l2 must be in"):
        BPRConfig(l2=-0.1)
