from __future__ import annotations

import numpy as np
import pytest

from mmalign.benchmark.objective import Objective
from mmalign.errors import ConfigError
from mmalign.evaluation.result import Evaluation, SliceResult
from mmalign.models import Ease, KernelRidge


def evaluation(**means):
    slices = {
        name: SliceResult(np.arange(3), {}, {"ndcg@20": value}, {}, {})
        for name, value in means.items()
    }
    return Evaluation("valid", (20,), (), slices)


def test_reads_one_slice_or_all():
    found = evaluation(warm=0.2, cold=0.4, all=0.4)
    assert Objective.parse("valid/cold_ndcg@20").value(found) == 0.4
    assert Objective.parse("valid/ndcg@20").value(found) == pytest.approx(3 / (5 + 2.5 + 2.5))


def test_a_model_without_cold_items_is_measured_on_warm_ones():
    for text in ("valid/ndcg@20", "valid/cold_ndcg@20", "valid/all_ndcg@20"):
        assert str(Objective.parse(text).for_model(Ease)) == "valid/warm_ndcg@20"
        assert str(Objective.parse(text).for_model(KernelRidge)) == text


@pytest.mark.parametrize(
    "text", ["ndcg@20", "valid/ndcg", "valid/ndcg@0", "valid/hot_ndcg@20", "test/ndcg@20"]
)
def test_no_metric(text):
    with pytest.raises(ConfigError, match="valid/ndcg@20"):
        Objective.parse(text)
