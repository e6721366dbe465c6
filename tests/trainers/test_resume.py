from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from mmalign.models.aligned import Aligned, AlignedConfig
from mmalign.models.neural.lightgcn import LightGCN, LightGCNConfig
from mmalign.trainers.resume import describe

ROWS = sp.csr_matrix([[1.0, 0.0, 2.0], [0.0, 1.0, 1.0]])


def described(train=ROWS, valid=ROWS, model=None, seed=0):
    return describe(model or Aligned(AlignedConfig()), train, valid, seed=seed)


def differing(**changes):
    one, two = described(), described(**changes)
    return {name for name in {**one, **two} if one.get(name) != two.get(name)}


def test_each_change_is_named_and_no_other():
    weight, place = ROWS.copy(), ROWS.copy()
    weight.data[0] = 3
    place.indices[0] = 1
    wider = sp.csr_matrix((ROWS.data, ROWS.indices, ROWS.indptr), shape=(2, 4))
    for other in (weight, place, wider):
        assert differing(train=other) == {"train rows"}
        assert differing(valid=other) == {"valid rows"}
    assert differing(seed=1) == {"seed"}
    assert differing(model=Aligned(AlignedConfig(cold_share=0.1))) == {"model.aligned.cold_share"}
    teacher = AlignedConfig(teacher=type(AlignedConfig().teacher)(l2=3.0))
    assert differing(model=Aligned(teacher)) == {"model.aligned.teacher.l2"}
    assert "model.name" in differing(model=LightGCN(LightGCNConfig()))


def test_the_same_rows_in_another_order_of_storage_are_the_same():
    stored = sp.csr_matrix(
        (np.float64([2, 1, 1, 1]), np.int64([2, 0, 1, 2]), np.int64([0, 2, 4])), shape=(2, 3)
    )
    assert (stored != ROWS).nnz == 0
    assert differing(train=stored, valid=stored) == set()


def test_values_are_plain():
    for value in described().values():
        assert isinstance(value, str | int | float | bool | None | list)
