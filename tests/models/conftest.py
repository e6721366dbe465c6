"""A tiny shop: fourteen items, the last four of them cold, and thirty users."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from mmalign.interfaces import Feature
from mmalign.models import TrainData

NUM_USERS, NUM_WARM, NUM_COLD = 30, 10, 4
NO_IMAGE, NOTHING = (3, 12), 13


@pytest.fixture
def shop() -> TrainData:
    """Item 3 (warm) and 12 (cold) have no image, item 13 (cold) has no content at all."""
    rng = np.random.default_rng(7)
    num_items = NUM_WARM + NUM_COLD
    taken = rng.random((NUM_USERS, num_items)) < 0.3
    taken[:, NUM_WARM:] = False
    taken[np.arange(NUM_USERS), np.arange(NUM_USERS) % NUM_WARM] = True
    taken[-1] = False  # a user without a train row
    features = {}
    for name, dim in {"text": 6, "image": 4, "genre": 3}.items():
        values = rng.standard_normal((num_items, dim)).astype(np.float32)
        present = np.ones(num_items, dtype=bool)
        present[NOTHING] = False
        if name == "image":
            present[list(NO_IMAGE)] = False
        values[~present] = 0
        features[name] = Feature(values, present)
    return TrainData(sp.csr_matrix(taken.astype(np.float32)), features)
