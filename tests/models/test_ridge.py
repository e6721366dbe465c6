"""Ridge against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from mmalign.models.ridge import ridge_map


@pytest.mark.parametrize("penalty", [0.1, 10.0])
def test_ridge_map_equals_scikit_learn(penalty: float) -> None:
    rng = np.random.default_rng(0)
    content = rng.standard_normal((30, 5)).astype(np.float32)
    targets = rng.standard_normal((30, 3))
    peer = Ridge(alpha=penalty, fit_intercept=False).fit(content, targets)
    found = ridge_map(content, targets, penalty)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, peer.coef_.T, atol=1e-5)
