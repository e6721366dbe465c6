from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.loss import ClipLoss
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from mmalign.errors import ConfigError, DataError
from mmalign.objectives.alignment import (
    LearnedTemperature,
    alignment,
    info_nce,
    modality_gap,
    retrieval_at_k,
    uniformity,
)

Loss = Callable[..., Tensor]
PAIR_LOSSES: dict[str, Loss] = {
    "info_nce": lambda a, b, mask=None: info_nce(a, b, 0.3, mask),
    "alignment": alignment,
    "modality_gap": modality_gap,
    "uniformity": lambda a, b, mask=None: uniformity(a, mask) + uniformity(b, mask),
}


def views(n: int = 6, dim: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(n, dim, generator=generator, dtype=torch.float64)
    b = a + torch.randn(n, dim, generator=generator, dtype=torch.float64)
    return a.requires_grad_(), b.requires_grad_()


def cosine(x: Tensor, y: Tensor) -> float:
    return float((x @ y / (x.norm() * y.norm())).detach())


def info_nce_by_loops(
    a: Tensor, b: Tensor, temperature: float, ignore: Tensor | None = None
) -> float:
    losses = []
    n = len(a)
    for i in range(n):
        others = [j for j in range(n) if j == i or ignore is None or not ignore[i, j]]
        forward = sum(math.exp(cosine(a[i], b[j]) / temperature) for j in others)
        backward = sum(math.exp(cosine(a[j], b[i]) / temperature) for j in others)
        own = math.exp(cosine(a[i], b[i]) / temperature)
        losses += [-math.log(own / forward), -math.log(own / backward)]
    return sum(losses) / len(losses)


def test_info_nce_equals_plain_loops() -> None:
    a, b = views()
    assert info_nce(a, b, 0.2).item() == pytest.approx(info_nce_by_loops(a, b, 0.2))


def test_info_nce_leaves_false_negatives_out_of_the_contrast() -> None:
    a, b = views()
    ignore = torch.zeros(6, 6, dtype=torch.bool)
    ignore[0, 3] = ignore[5, 1] = ignore[2, 2] = True
    expected = info_nce_by_loops(a, b, 0.2, ignore)
    assert info_nce(a, b, 0.2, false_negatives=ignore).item() == pytest.approx(expected)
    assert expected < info_nce_by_loops(a, b, 0.2)


def test_info_nce_with_everything_a_false_negative_is_zero() -> None:
    a, b = views()
    loss = info_nce(a, b, 0.2, false_negatives=torch.ones(6, 6, dtype=torch.bool))
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-12)
    assert a.grad is not None
    assert a.grad.abs().max() < 1e-12


def test_mask_and_false_negatives_together() -> None:
    a, b = views()
    mask = torch.tensor([True, False, True, True, False, True])
    ignore = torch.rand(6, 6, generator=torch.Generator().manual_seed(3)) < 0.4
    expected = info_nce_by_loops(a[mask], b[mask], 0.2, ignore[mask][:, mask])
    assert info_nce(a, b, 0.2, mask, ignore).item() == pytest.approx(expected)


def test_info_nce_equals_open_clip_in_value_and_gradient() -> None:
    a, b = views(9, 5)
    scale = torch.tensor(7.0, dtype=torch.float64)
    temperature = (1 / scale).requires_grad_()
    theirs = ClipLoss()(F.normalize(a, dim=1), F.normalize(b, dim=1), 1 / temperature)
    expected = torch.autograd.grad(theirs, [a, b, temperature])
    ours = info_nce(a, b, temperature)
    torch.testing.assert_close(ours, theirs)
    for got, wanted in zip(torch.autograd.grad(ours, [a, b, temperature]), expected, strict=True):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_gradients_agree_with_finite_differences(name: str) -> None:
    mask = torch.tensor([True, True, False, True, True, True])
    assert torch.autograd.gradcheck(lambda a, b: PAIR_LOSSES[name](a, b, mask), views())


def test_gradient_with_false_negatives_and_learned_temperature() -> None:
    ignore = torch.rand(6, 6, generator=torch.Generator().manual_seed(3)) < 0.4
    temperature = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda a, b, t: info_nce(a, b, t, false_negatives=ignore), (*views(), temperature)
    )


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_absent_rows_are_never_read(name: str) -> None:
    a, b = views()
    mask = torch.tensor([True, True, False, True, False, True])
    expected = PAIR_LOSSES[name](a[mask], b[mask])
    with torch.no_grad():
        a[2], a[4], b[2], b[4] = math.nan, math.inf, -math.inf, 0.0
    loss = PAIR_LOSSES[name](a, b, mask)
    loss.backward()
    torch.testing.assert_close(loss, expected)
    for view in (a, b):
        assert view.grad is not None
        assert view.grad.isfinite().all()
        assert not view.grad[~mask].any()
        assert view.grad[mask].any()


@pytest.mark.parametrize("name", PAIR_LOSSES)
@pytest.mark.parametrize("present", [0, 1])
def test_too_few_items_give_a_finite_loss_that_still_has_a_gradient(
    name: str, present: int
) -> None:
    a, b = views()
    loss = PAIR_LOSSES[name](a, b, torch.arange(6) < present)
    loss.backward()
    if present == 0 or name in ("info_nce", "uniformity"):
        assert loss.item() == 0.0
    assert loss.isfinite()
    assert a.grad is not None
    assert a.grad.isfinite().all()


def test_too_few_items_give_the_temperature_a_zero_gradient() -> None:
    a, b = views()
    temperature = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    info_nce(a, b, temperature, torch.zeros(6, dtype=torch.bool)).backward()
    assert temperature.grad is not None
    assert temperature.grad.item() == 0.0


@settings(max_examples=25, deadline=None)
@given(n=st.integers(2, 8), seed=st.integers(0, 1000), scale=st.floats(0.01, 100.0))
def test_losses_ignore_the_order_of_items_and_the_length_of_vectors(
    n: int, seed: int, scale: float
) -> None:
    a, b = views(n, 3, seed)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    for loss in PAIR_LOSSES.values():
        torch.testing.assert_close(loss(a[order] * scale, b[order]), loss(a, b))


def test_losses_rank_aligned_above_shuffled_views() -> None:
    a, b = views(32, 8)
    shuffled = b[torch.randperm(32, generator=torch.Generator().manual_seed(1))]
    assert info_nce(a, b, 0.1) < info_nce(a, shuffled, 0.1)
    assert alignment(a, b) < alignment(a, shuffled)
    assert retrieval_at_k(a, b, 5) > retrieval_at_k(a, shuffled, 5)


def test_alignment_equals_two_minus_twice_the_cosine() -> None:
    a, b = views()
    expected = np.mean([2 - 2 * cosine(a[i], b[i]) for i in range(6)])
    assert alignment(a, b).item() == pytest.approx(expected)


def test_uniformity_equals_plain_loops() -> None:
    a, _ = views()
    potentials = [
        math.exp(-2.0 * (2 - 2 * cosine(a[i], a[j]))) for i in range(6) for j in range(i + 1, 6)
    ]
    assert uniformity(a).item() == pytest.approx(math.log(np.mean(potentials)))


def test_uniformity_of_a_collapsed_view_is_zero_and_has_a_finite_gradient() -> None:
    x = torch.ones(5, 3, dtype=torch.float64, requires_grad=True)
    value = uniformity(x)
    value.backward()
    assert value.item() == pytest.approx(0.0, abs=1e-9)
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_modality_gap_equals_the_distance_of_the_centres() -> None:
    a, b = views()
    x, y = a.detach().numpy(), b.detach().numpy()
    centres = [(v / np.linalg.norm(v, axis=1, keepdims=True)).mean(axis=0) for v in (x, y)]
    assert modality_gap(a, b).item() == pytest.approx(np.linalg.norm(centres[0] - centres[1]))


def test_modality_gap_of_equal_views_is_zero_without_nan_gradient() -> None:
    a, _ = views()
    gap = modality_gap(a, a.detach())
    gap.backward()
    assert gap.item() == 0.0
    assert a.grad is not None
    assert a.grad.isfinite().all()


@pytest.mark.parametrize("k", [1, 3, 10, 100])
@pytest.mark.parametrize("block_size", [7, 1024])
def test_retrieval_equals_scikit_learn(k: int, block_size: int) -> None:
    a, b = views(40, 6)
    x, y = a.detach().numpy(), b.detach().numpy()
    search = NearestNeighbors(n_neighbors=min(k, 40), metric="cosine").fit(y)
    found = search.kneighbors(x, return_distance=False)
    expected = np.mean([i in row for i, row in enumerate(found)])
    assert retrieval_at_k(a, b, k, block_size=block_size) == pytest.approx(expected)


def test_retrieval_of_a_collapsed_view_is_chance() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(60, 33, generator=generator)
    lengths = torch.rand(60, 1, generator=generator) + 0.1  # cosines are equal but for rounding
    b = lengths * torch.randn(33, generator=generator)
    assert retrieval_at_k(a, b, k=15) == pytest.approx(15 / 60)


def test_retrieval_searches_only_what_is_present() -> None:
    a = torch.eye(4)
    b = torch.stack([a[0], a[1], a[0] * 3, torch.full((4,), math.nan)])
    mask = torch.tensor([True, True, False, False])
    assert retrieval_at_k(a, b, 1, mask) == 1.0
    assert retrieval_at_k(a[:3], b[:3], 1) == pytest.approx((1 / 2 + 1 + 1 / 3) / 3)
    assert retrieval_at_k(a, b, 1, torch.zeros(4, dtype=torch.bool)) == 0.0


def test_learned_temperature_moves_down_when_views_agree_and_stops_at_its_bound() -> None:
    temperature = LearnedTemperature(0.5, minimum=0.2)
    a = torch.eye(6)
    optimizer = torch.optim.SGD(temperature.parameters(), lr=5.0)
    for _ in range(50):
        optimizer.zero_grad()
        info_nce(a, a, temperature()).backward()
        optimizer.step()
    assert temperature().item() == pytest.approx(0.2)


def test_learned_temperature_comes_back_from_its_bound() -> None:
    temperature = LearnedTemperature(0.1, minimum=0.05)
    with torch.no_grad():
        temperature.log_temperature.fill_(-50.0)  # an overshoot
    temperature().neg().backward()
    torch.optim.SGD(temperature.parameters(), lr=1.0).step()
    assert temperature().item() > 0.05


@pytest.mark.parametrize("arguments", [(0.1, 0.2, 1.0), (0.1, 0.0, 1.0), (2.0, 0.01, 1.0)])
def test_learned_temperature_refuses_wrong_bounds(arguments: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="minimum <= initial <= maximum"):
        LearnedTemperature(*arguments)


def test_wrong_input_is_refused_in_one_line() -> None:
    a, b = views()
    with pytest.raises(DataError, match="one shape"):
        info_nce(a, b[:3], 0.1)
    with pytest.raises(DataError, match="one bool per item"):
        alignment(a, b, torch.ones(6))
    with pytest.raises(DataError, match="one bool per pair"):
        info_nce(a, b, 0.1, false_negatives=torch.ones(6, 2, dtype=torch.bool))
    with pytest.raises(ConfigError, match="temperature must be positive"):
        info_nce(a, b, 0.0)
    with pytest.raises(ConfigError, match="k must be at least 1"):
        retrieval_at_k(a, b, 0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_hit_nothing(value: float) -> None:
    a = torch.eye(4)
    a[1, 2] = value
    assert retrieval_at_k(a, torch.eye(4), k=1) == 0.75
    assert retrieval_at_k(a, a, k=10) == 0.75
    assert retrieval_at_k(torch.full((4, 4), value), torch.eye(4), k=10) == 0
