from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import rel_entr, softmax
from sklearn.metrics import log_loss
from torch import Tensor

from mmalign.errors import ConfigError, DataError
from mmalign.objectives.ranking import bpr, full_softmax, kl_to_teacher, sampled_softmax

Average = Literal["users", "positives"]


@pytest.fixture
def scores() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 7, generator=generator, dtype=torch.float64, requires_grad=True)


@pytest.fixture
def targets() -> Tensor:
    matrix = torch.zeros(4, 7, dtype=torch.float64)
    matrix[0, 1] = matrix[0, 5] = matrix[1, 0] = 1.0
    matrix[3, 2], matrix[3, 3], matrix[3, 6] = 2.0, 0.5, 1.0
    return matrix  # user 2 has no positive


@pytest.fixture
def exclude() -> Tensor:
    mask = torch.zeros(4, 7, dtype=torch.bool)
    mask[0, 0] = mask[0, 1] = mask[1, 3] = mask[3, 4] = True  # (0, 1) is a target and stays
    mask[2] = True
    return mask


def softmax_by_loops(
    scores: Tensor, targets: Tensor, exclude: Tensor | None, average: Average
) -> float:
    per_user, total, weight = [], 0.0, 0.0
    scores = scores.detach()
    for u in range(len(scores)):
        positives = [i for i in range(scores.shape[1]) if targets[u, i] > 0]
        normaliser = sum(
            math.exp(scores[u, j])
            for j in range(scores.shape[1])
            if exclude is None or not exclude[u, j] or j in positives
        )
        loss = sum(
            float(targets[u, i]) * (math.log(normaliser) - float(scores[u, i])) for i in positives
        )
        own = sum(float(targets[u, i]) for i in positives)
        total, weight = total + loss, weight + own
        if positives:
            per_user.append(loss / own)
    return float(np.mean(per_user)) if average == "users" else total / weight


@pytest.mark.parametrize("average", ["users", "positives"])
@pytest.mark.parametrize("excluding", [False, True])
def test_full_softmax_equals_plain_loops(
    scores: Tensor, targets: Tensor, exclude: Tensor, average: Average, excluding: bool
) -> None:
    left_out = exclude if excluding else None
    expected = softmax_by_loops(scores, targets, left_out, average)
    assert full_softmax(scores, targets, left_out, average).item() == pytest.approx(expected)


@pytest.mark.parametrize("average", ["users", "positives"])
def test_full_softmax_takes_scipy_matrices(
    scores: Tensor, targets: Tensor, exclude: Tensor, average: Average
) -> None:
    expected = full_softmax(scores, targets, exclude, average)
    stored = targets.clone()
    stored[2, 2] = 9.0
    sparse_targets = sp.csr_matrix(stored.numpy())
    sparse_targets.data[sparse_targets.data == 9.0] = 0.0  # a stored zero is no positive
    got = full_softmax(scores, sparse_targets, sp.csr_matrix(exclude.numpy()), average)
    torch.testing.assert_close(got, expected)


def test_full_softmax_equals_torch_cross_entropy(scores: Tensor, targets: Tensor) -> None:
    rows = torch.tensor([0, 1, 3])
    shares = targets[rows] / targets[rows].sum(dim=1, keepdim=True)
    theirs = F.cross_entropy(scores[rows], shares)
    ours = full_softmax(scores, targets)
    torch.testing.assert_close(ours, theirs)
    expected = torch.autograd.grad(theirs, scores)
    torch.testing.assert_close(torch.autograd.grad(ours, scores), expected)


@pytest.mark.parametrize("average", ["users", "positives"])
def test_full_softmax_gradient(
    scores: Tensor, targets: Tensor, exclude: Tensor, average: Average
) -> None:
    assert torch.autograd.gradcheck(lambda s: full_softmax(s, targets, exclude, average), scores)
    full_softmax(scores, targets, exclude, average).backward()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()
    assert not scores.grad[exclude & (targets == 0)].any()


@pytest.mark.parametrize("average", ["users", "positives"])
def test_a_batch_without_positives_is_zero_with_zero_gradient(
    scores: Tensor, average: Average
) -> None:
    everything = torch.ones(4, 7, dtype=torch.bool)
    loss = full_softmax(scores, torch.zeros(4, 7), everything, average)
    loss.backward()
    assert loss.item() == 0.0
    assert scores.grad is not None
    assert not scores.grad.any()


def test_users_and_positives_count_as_documented() -> None:
    scores = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]])
    targets = torch.tensor([[1.0, 1.0], [1.0, 0.0]])  # losses: log 2 twice; log 4/3
    mean_of_users = (math.log(2) + math.log(4 / 3)) / 2
    mean_of_positives = (2 * math.log(2) + math.log(4 / 3)) / 3
    assert full_softmax(scores, targets).item() == pytest.approx(mean_of_users)
    by_positives = full_softmax(scores, targets, average="positives").item()
    assert by_positives == pytest.approx(mean_of_positives)


@settings(max_examples=30, deadline=None)
@given(shift=st.floats(-50, 50), seed=st.integers(0, 999))
def test_full_softmax_ignores_a_shift_and_survives_large_scores(shift: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(3, 5, generator=generator, dtype=torch.float64) * 1000
    targets = (torch.rand(3, 5, generator=generator) < 0.4).double()
    loss = full_softmax(scores, targets)
    assert loss.isfinite()
    torch.testing.assert_close(full_softmax(scores + shift, targets), loss)


def sampled_by_loops(
    positive: Tensor, negative: Tensor, log_q_positive: Tensor, log_q_negative: Tensor, mask: Tensor
) -> float:
    losses = []
    for p in range(len(positive)):
        own = math.exp(positive[p] - log_q_positive[p])
        others = [
            math.exp(negative[p, n] - log_q_negative[p, n])
            for n in range(negative.shape[1])
            if not mask[p, n]
        ]
        losses.append(-math.log(own / (own + sum(others))))
    return float(np.mean(losses))


def sample(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    positive, log_q_positive = torch.randn(2, 5, generator=generator, dtype=torch.float64)
    negative, log_q_negative = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64)
    mask = torch.rand(5, 3, generator=generator) < 0.3
    mask[0] = True  # a positive whose negatives are all known positives
    return positive, negative, log_q_positive, log_q_negative, mask


def test_sampled_softmax_equals_plain_loops() -> None:
    arguments = sample()
    expected = sampled_by_loops(*arguments)
    assert sampled_softmax(*arguments).item() == pytest.approx(expected)


def test_sampled_softmax_shares_one_row_of_log_q() -> None:
    positive, negative, _, log_q_negative, _ = sample()
    shared = log_q_negative[0]
    wide = shared.expand(5, 3)
    torch.testing.assert_close(
        sampled_softmax(positive, negative, log_q_negative=shared),
        sampled_softmax(positive, negative, log_q_negative=wide),
    )


def test_sampled_softmax_gradient() -> None:
    positive, negative, log_q_positive, log_q_negative, mask = sample()
    inputs = positive.clone().requires_grad_(), negative.clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda p, n: sampled_softmax(p, n, log_q_positive, log_q_negative, mask), inputs
    )
    sampled_softmax(*inputs, log_q_positive, log_q_negative, mask).backward()
    assert inputs[1].grad is not None
    assert not inputs[1].grad[mask].any()


def test_sampling_every_item_once_is_the_full_softmax() -> None:
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn(4, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    positive = torch.tensor([2, 0, 5, 2])
    itself = F.one_hot(positive, 6).bool()
    uniform = torch.full((6,), 0.0, dtype=torch.float64)  # each item is expected once
    sampled = sampled_softmax(
        scores[torch.arange(4), positive], scores, None, uniform, negative_is_positive=itself
    )
    full = full_softmax(scores, itself.double())
    torch.testing.assert_close(sampled, full)
    expected = torch.autograd.grad(full, scores)
    torch.testing.assert_close(torch.autograd.grad(sampled, scores), expected)
    torch.testing.assert_close(full, F.cross_entropy(scores, positive))


@pytest.mark.parametrize("corrected", [True, False])
def test_the_corrected_normaliser_is_unbiased_and_the_plain_one_is_not(corrected: bool) -> None:
    # exp(loss) = Z / e^{s+}; its expectation over two draws from q is enumerated, not simulated.
    generator = torch.Generator().manual_seed(2)
    scores = torch.randn(5, generator=generator, dtype=torch.float64)
    q = torch.tensor([0.5, 0.2, 0.15, 0.1, 0.05], dtype=torch.float64)
    positive, draws = 1, 2
    expectation = 0.0
    for i in range(5):
        for j in range(5):
            drawn = torch.tensor([i, j])
            loss = sampled_softmax(
                scores[[positive]],
                scores[drawn][None],
                log_q_negative=(draws * q[drawn]).log() if corrected else None,
                negative_is_positive=(drawn == positive)[None],
            )
            expectation += float(q[i] * q[j] * loss.exp())
    exact = float(scores.exp().sum() / scores[positive].exp())
    assert (expectation == pytest.approx(exact)) == corrected


def test_sampled_softmax_of_nothing_is_zero() -> None:
    positive = torch.zeros(0, requires_grad=True)
    loss = sampled_softmax(positive, torch.zeros(0, 3))
    loss.backward()
    assert loss.item() == 0.0


def test_bpr_equals_plain_loops_and_scikit_learn() -> None:
    positive, negative, _, _, mask = sample()
    pairs = [(p, n) for p in range(5) for n in range(3) if not mask[p, n]]
    margins = np.array([float(positive[p] - negative[p, n]) for p, n in pairs])
    by_loops = np.mean([-math.log(1 / (1 + math.exp(-m))) for m in margins])
    assert bpr(positive, negative, mask).item() == pytest.approx(by_loops)
    library = log_loss(np.ones(len(pairs)), 1 / (1 + np.exp(-margins)), labels=[0, 1])
    assert bpr(positive, negative, mask).item() == pytest.approx(library)


def test_bpr_gradient_and_extremes() -> None:
    positive, negative, _, _, mask = sample()
    inputs = positive.clone().requires_grad_(), negative.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda p, n: bpr(p, n, mask), inputs)
    assert bpr(torch.tensor([-1e4]), torch.tensor([[1e4]])).item() == pytest.approx(2e4)
    everything = bpr(*inputs, torch.ones(5, 3, dtype=torch.bool))
    everything.backward()
    assert everything.item() == 0.0
    assert inputs[0].grad is not None


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_kl_to_teacher_equals_scipy(scores: Tensor, temperature: float) -> None:
    generator = torch.Generator().manual_seed(5)
    teacher = torch.randn(4, 7, generator=generator, dtype=torch.float64)
    student = scores.detach().numpy()
    p = softmax(teacher.numpy() / temperature, axis=1)
    q = softmax(student / temperature, axis=1)
    expected = temperature**2 * rel_entr(p, q).sum(axis=1).mean()
    by_loops = np.mean(
        [sum(p[u, i] * math.log(p[u, i] / q[u, i]) for i in range(7)) for u in range(4)]
    )
    got = kl_to_teacher(scores, teacher, temperature)
    assert got.item() == pytest.approx(expected)
    assert got.item() == pytest.approx(temperature**2 * by_loops)
    assert torch.autograd.gradcheck(lambda s: kl_to_teacher(s, teacher, temperature), scores)


def test_kl_to_teacher_has_the_gradient_of_soft_cross_entropy_and_spares_the_teacher(
    scores: Tensor,
) -> None:
    teacher = torch.randn(4, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    teacher.requires_grad_()
    cross_entropy = F.cross_entropy(scores, teacher.detach().softmax(dim=1))
    expected = torch.autograd.grad(cross_entropy, scores)
    kl_to_teacher(scores, teacher).backward()
    assert teacher.grad is None
    assert scores.grad is not None
    torch.testing.assert_close(scores.grad, expected[0])


def test_wrong_input_is_refused_in_one_line(scores: Tensor, targets: Tensor) -> None:
    with pytest.raises(DataError, match="targets has the wrong shape"):
        full_softmax(scores, targets[:, :3])
    with pytest.raises(DataError, match="exclude has the wrong shape"):
        full_softmax(scores, targets, targets[:2] > 0)
    with pytest.raises(DataError, match="a target is negative"):
        full_softmax(scores, -targets)
    with pytest.raises(ConfigError, match="unknown average"):
        full_softmax(scores, targets, average="items")  # type: ignore[arg-type]
    positive, negative, log_q, _, mask = sample()
    with pytest.raises(DataError, match=r"\[P, N\] for negatives"):
        sampled_softmax(positive, negative[:2])
    with pytest.raises(DataError, match="log_q_positive has the wrong shape"):
        sampled_softmax(positive, negative, log_q[:2])
    with pytest.raises(DataError, match="log_q_negative has the wrong shape"):
        sampled_softmax(positive, negative, log_q, log_q)
    with pytest.raises(DataError, match="negative_is_positive has the wrong shape"):
        bpr(positive, negative, mask[:, :1])
    with pytest.raises(DataError, match="teacher_scores has the wrong shape"):
        kl_to_teacher(scores, scores[:1])
    with pytest.raises(ConfigError, match="temperature must be positive"):
        kl_to_teacher(scores, scores, temperature=0.0)


def test_a_stored_zero_is_excluded_as_every_stored_entry_is() -> None:
    scores, targets = torch.zeros(1, 4), torch.tensor([[1.0, 0, 0, 0]])
    stored = sp.csr_matrix((np.array([0.0, 1.0]), np.array([1, 2]), np.array([0, 2])), shape=(1, 4))
    assert full_softmax(scores, targets, exclude=stored).exp().item() == pytest.approx(2)
    assert stored.data.tolist() == [0, 1]
