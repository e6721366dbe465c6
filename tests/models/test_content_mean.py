"""The mean of content by plain loops."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from mmalign.models import TrainData
from mmalign.models.content_mean import ContentMean, ContentMeanConfig
from mmalign.models.kernel import ContentKernel, KernelConfig

EVERYTHING = np.arange(14)


def test_a_user_is_the_mean_of_unit_vectors(shop: TrainData) -> None:
    z = ContentKernel(KernelConfig()).fit(shop.features, shop.warm).transform(shop.features)
    unit = [row / np.linalg.norm(row) if row.any() else row for row in z.astype(np.float64)]
    expected = np.zeros((30, 14))
    for user, row in enumerate(shop.matrix):
        if not row.nnz:
            continue
        mean = np.mean([unit[item] for item in row.indices], axis=0)
        for item in range(14):
            expected[user, item] = mean @ unit[item] / np.linalg.norm(mean)
    model = ContentMean(ContentMeanConfig()).fit(shop)
    np.testing.assert_allclose(model.score(shop.matrix, EVERYTHING), expected, atol=1e-5)
    assert (model.score(shop.matrix, np.array([13])) == 0).all()  # nothing is known of it


def test_cold_items_of_a_history_count(shop: TrainData) -> None:
    model = ContentMean(ContentMeanConfig()).fit(shop)
    history = sp.csr_matrix(([1.0], ([0], [11])), shape=(1, 14), dtype=np.float32)
    scores = model.score(history, EVERYTHING)[0]
    assert scores.argmax() == 11
    np.testing.assert_allclose(scores[11], 1, rtol=1e-5)
