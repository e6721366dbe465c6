"""Ranking losses: what makes a user's items score above all others.

Which one to use:

================  ==============================================================================
full_softmax      the catalogue fits in one score matrix (some ten thousand items)
sampled_softmax   it does not; correct for how the negatives were drawn
bpr               pairs only; a baseline
kl_to_teacher     another model (a closed form) has scores worth imitating
================  ==============================================================================

Scores are taken as they are: divide cosines by a temperature first. A batch without a single
positive gives zero with zero gradient, never NaN.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor

from mmalign.errors import ConfigError, DataError

__all__ = ["bpr", "full_softmax", "kl_to_teacher", "sampled_softmax"]


def full_softmax(
    scores: Tensor,
    targets: Tensor | sp.csr_matrix,
    exclude: Tensor | sp.csr_matrix | None = None,
    average: Literal["users", "positives"] = "users",
) -> Tensor:
    r"""Negative log likelihood of the positives under a softmax over all items.

    With ``l_ui = logsumexp_j s_uj - s_ui`` and weights ``w_ui`` of the positives:

    * ``average="users"``: the mean over users of ``sum_i w_ui l_ui / sum_i w_ui``; every user
      counts alike, as in the metrics;
    * ``average="positives"``: ``sum_ui w_ui l_ui / sum_ui w_ui``; every interaction counts alike.

    Users without a positive are left out. The multinomial likelihood of Mult-VAE (Liang et al.,
    2018, arXiv:1802.05814) with either mean.

    Args:
        scores: Score of every item for each user.
        targets: Weights of the positives, zero elsewhere; a tensor or a scipy matrix.
        exclude: Items that a user does not choose among, such as those of the history that
            messages were passed on; True or stored entries. A target is never excluded.
        average: What counts alike.

    Shapes:
        scores: ``[B, I]``; targets: ``[B, I]``; exclude: ``[B, I]``; returns: scalar.

    Raises:
        DataError: Shapes that do not fit, or a negative target.
        ConfigError: An unknown ``average``.

    Example:
        >>> scores = torch.zeros(1, 4)
        >>> targets = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
        >>> full_softmax(scores, targets).exp()  # one of four
        tensor(4.)
        >>> full_softmax(scores, targets, exclude=torch.tensor([[0, 1, 1, 0]]) > 0).exp()
        tensor(2.)
    """
    if average not in ("users", "positives"):
        raise ConfigError("unknown average", got=average, fix="'users' or 'positives'")
    users, items, weights = _entries(targets, scores, "targets")
    if (weights < 0).any():
        raise DataError("a target is negative", got=weights.min().item(), fix="weights are >= 0")
    positive = scores[users, items]
    if exclude is not None:
        if not isinstance(exclude, Tensor):
            exclude = sp.csr_matrix(exclude, copy=True)
            exclude.data = np.ones_like(exclude.data)
        excluded_users, excluded_items, _ = _entries(exclude, scores, "exclude")
        allowed = scores.index_put((excluded_users, excluded_items), scores.new_tensor(-torch.inf))
        scores = allowed.index_put((users, items), positive)
    # Only rows with a positive enter: a row with every item excluded has no finite normaliser.
    rows, row_of_entry = torch.unique(users, return_inverse=True)
    loss = scores[rows].logsumexp(dim=1)[row_of_entry] - positive
    if average == "positives":
        return (weights * loss).sum() / weights.sum().clamp_min(1e-12)  # 0 / 0 is to be 0
    total = weights.new_zeros(len(rows)).index_add(0, row_of_entry, weights)
    return (weights / total[row_of_entry] * loss).sum() / max(len(rows), 1)


def sampled_softmax(
    positive_scores: Tensor,
    negative_scores: Tensor,
    log_q_positive: Tensor | None = None,
    log_q_negative: Tensor | None = None,
    negative_is_positive: Tensor | None = None,
) -> Tensor:
    r"""Softmax over one positive and a sample of negatives, corrected for the sampling.

    Each score is lowered by the log of how often its item is expected among the candidates:
    ``s' = s - log q``; the loss is the mean over positives of
    ``logsumexp([s'_+, s'_1, ..., s'_N]) - s'_+`` (Bengio & Senecal, 2008, IEEE TNN 19(4); in-batch
    with frequencies: Yi et al., RecSys 2019). Without it, popular items that are drawn often are
    pushed down for being drawn often.

    What to pass as ``q``:

    * N draws with replacement, the positive added by hand: ``log_q_positive=None`` (it is always
      there) and ``log_q_negative=log(N q)``. The normaliser is then unbiased for the full
      softmax, where a draw of the positive is masked.
    * In-batch negatives: the log frequency of each item on both sides.

    Args:
        positive_scores: Score of one positive each.
        negative_scores: Scores of its negatives.
        log_q_positive: Log expected count of the positive; None means 0.
        log_q_negative: Log expected count of each negative; None means 0.
        negative_is_positive: True where a negative is known to be a positive of the same user
            (or the positive itself); it is left out.

    Shapes:
        positive_scores: ``[P]``; negative_scores: ``[P, N]``; log_q_positive: ``[P]``;
        log_q_negative: ``[P, N]`` or ``[N]`` when all share the sample; negative_is_positive:
        ``[P, N]`` bool; returns: scalar.

    Raises:
        DataError: Shapes that do not fit.

    Example:
        >>> sampled_softmax(torch.zeros(1), torch.zeros(1, 3)).exp()
        tensor(4.)
    """
    _check_pairs(positive_scores, negative_scores, negative_is_positive)
    if log_q_positive is not None:
        _check_shape("log_q_positive", log_q_positive, positive_scores.shape)
        positive_scores = positive_scores - log_q_positive
    if log_q_negative is not None:
        if log_q_negative.dim() == 1:
            log_q_negative = log_q_negative.expand(len(negative_scores), -1)
        _check_shape("log_q_negative", log_q_negative, negative_scores.shape)
        negative_scores = negative_scores - log_q_negative
    if negative_is_positive is not None:
        negative_scores = negative_scores.masked_fill(negative_is_positive, -torch.inf)
    candidates = torch.cat([positive_scores[:, None], negative_scores], dim=1)
    loss = candidates.logsumexp(dim=1) - positive_scores
    return loss.sum() / max(len(loss), 1)


def bpr(
    positive_scores: Tensor,
    negative_scores: Tensor,
    negative_is_positive: Tensor | None = None,
) -> Tensor:
    r"""Bayesian personalised ranking: each positive above each of its negatives.

    The mean over pairs of ``-log sigmoid(s_+ - s_-)`` (Rendle et al., 2009, arXiv:1205.2618).

    Args:
        positive_scores: Score of one positive each.
        negative_scores: Scores of its negatives.
        negative_is_positive: True where a negative is known to be a positive; the pair is left out.

    Shapes:
        positive_scores: ``[P]``; negative_scores: ``[P, N]``; negative_is_positive: ``[P, N]``
        bool; returns: scalar.

    Raises:
        DataError: Shapes that do not fit.

    Example:
        >>> bpr(torch.tensor([1.0]), torch.tensor([[1.0]]))  # log 2
        tensor(0.6931)
    """
    _check_pairs(positive_scores, negative_scores, negative_is_positive)
    loss = F.softplus(negative_scores - positive_scores[:, None])
    if negative_is_positive is not None:
        loss = loss[~negative_is_positive]
    return loss.sum() / max(loss.numel(), 1)


def kl_to_teacher(scores: Tensor, teacher_scores: Tensor, temperature: float = 1.0) -> Tensor:
    r"""Distance from a teacher's distribution over items to the student's.

    ``T^2 mean_u KL(softmax(teacher_u / T) || softmax(student_u / T))`` (Hinton et al., 2015,
    arXiv:1503.02531). The factor keeps the size of the gradient when the temperature changes. The
    teacher gets no gradient.

    Args:
        scores: The student's scores.
        teacher_scores: The teacher's scores, finite, on the scale of the student's.
        temperature: Positive; higher looks further down the teacher's list.

    Shapes:
        scores: ``[B, I]``; teacher_scores: ``[B, I]``; returns: scalar, at least 0.

    Raises:
        DataError: Shapes that do not fit.
        ConfigError: A temperature that is not positive.

    Example:
        >>> scores = torch.tensor([[1.0, 2.0, 3.0]])
        >>> kl_to_teacher(scores, scores + 5)
        tensor(0.)
    """
    if not temperature > 0:
        raise ConfigError("temperature must be positive", got=temperature, fix="1 is usual")
    _check_shape("teacher_scores", teacher_scores, scores.shape)
    student = (scores / temperature).log_softmax(dim=1)
    teacher = (teacher_scores.detach() / temperature).log_softmax(dim=1)
    divergence = F.kl_div(student, teacher, reduction="sum", log_target=True)
    return divergence * temperature**2 / max(len(scores), 1)


def _entries(
    matrix: Tensor | sp.csr_matrix, scores: Tensor, name: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Users, items and weights of the entries of a matrix that are not zero."""
    _check_shape(name, matrix, scores.shape)
    if isinstance(matrix, Tensor):
        users, items = matrix.nonzero(as_tuple=True)
        return users, items, matrix[users, items].to(scores.dtype)
    entries = sp.csr_matrix(matrix, copy=True)
    entries.sum_duplicates()
    entries.eliminate_zeros()
    entries = entries.tocoo()
    index = np.stack([entries.row, entries.col]).astype(np.int64)
    users, items = torch.from_numpy(index).to(scores.device)
    return users, items, torch.from_numpy(entries.data).to(scores)


def _check_shape(name: str, value: Tensor | sp.csr_matrix, shape: torch.Size) -> None:
    if tuple(value.shape) != tuple(shape):
        raise DataError(
            f"{name} has the wrong shape", got=tuple(value.shape), fix=f"expected {tuple(shape)}"
        )


def _check_pairs(positive: Tensor, negative: Tensor, mask: Tensor | None) -> None:
    if positive.dim() != 1 or negative.dim() != 2 or len(positive) != len(negative):
        raise DataError(
            "scores must be [P] for positives and [P, N] for negatives",
            got=(tuple(positive.shape), tuple(negative.shape)),
            fix="pass one row of negatives per positive",
        )
    if mask is not None:
        _check_shape("negative_is_positive", mask, negative.shape)
