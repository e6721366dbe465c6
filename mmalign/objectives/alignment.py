"""Alignment of two views of the same items: the loss that makes it, and measures of how far it got.

In every function row n of ``a`` and row n of ``b`` are two views of item n (its picture and its
text, or its content and its place in the graph), and ``mask`` names the items that have both.
Rows outside the mask are never read: they may hold anything, NaN included, and get gradient zero.

Which one to use:

================  ==================================================  =======  ==========
function          says                                                a loss?  best value
================  ==================================================  =======  ==========
info_nce          how well each view picks out its partner            yes      0
alignment         squared distance between partners                   yes      0
uniformity        how evenly one view covers the sphere               yes      low
modality_gap      distance between the centres of the two views       yes      0
retrieval_at_k    share of items whose partner is among the top k     no       1
================  ==================================================  =======  ==========
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmalign.errors import ConfigError, DataError

__all__ = [
    "LearnedTemperature",
    "alignment",
    "info_nce",
    "modality_gap",
    "retrieval_at_k",
    "uniformity",
]


def info_nce(
    a: Tensor,
    b: Tensor,
    temperature: float | Tensor,
    mask: Tensor | None = None,
    false_negatives: Tensor | None = None,
) -> Tensor:
    r"""Contrast each item's two views with the views of all other items, in both directions.

    With ``s_nm = cos(a_n, b_m) / temperature`` the loss is the mean over n of

    ``(logsumexp_m s_nm + logsumexp_m s_mn) / 2 - s_nn``

    (InfoNCE: van den Oord et al., 2018, arXiv:1807.03748; symmetric, as in CLIP: Radford et al.,
    2021, arXiv:2103.00020). Fewer than two items to contrast give zero, with zero gradient.

    Args:
        a: One view.
        b: The other view.
        temperature: Positive; a tensor (see ``LearnedTemperature``) gets a gradient.
        mask: True for items that have both views; None means all.
        false_negatives: True at (n, m) where item m is known to go with item n as well, such as
            a duplicate: the pair is left out of the contrast of n, in both directions. The
            diagonal is ignored.

    Shapes:
        a, b: ``[N, D]``; mask: ``[N]`` bool; false_negatives: ``[N, N]`` bool.
        returns: scalar, at least 0.

    Raises:
        DataError: Shapes that do not fit.
        ConfigError: A temperature that is not positive.

    Example:
        >>> a = torch.eye(2)
        >>> info_nce(a, a, temperature=1.0)  # log(1 + exp(-1))
        tensor(0.3133)
        >>> info_nce(a, a, temperature=1.0, mask=torch.tensor([True, False]))
        tensor(0.)
    """
    if not isinstance(temperature, Tensor) and not temperature > 0:
        raise ConfigError("temperature must be positive", got=temperature, fix="0.1 is usual")
    left, right = _partners(a, b, mask)
    similarity = left @ right.T / temperature
    if false_negatives is not None:
        if false_negatives.shape != (len(a), len(a)):
            raise DataError(
                "false_negatives must hold one bool per pair of items",
                got=tuple(false_negatives.shape),
                fix=f"pass shape {(len(a), len(a))}",
            )
        ignored = false_negatives if mask is None else false_negatives[mask][:, mask]
        itself = torch.eye(len(left), dtype=torch.bool, device=a.device)
        contrast_rows = similarity.masked_fill(ignored & ~itself, -torch.inf)
        contrast_columns = similarity.masked_fill(ignored.T & ~itself, -torch.inf)
    else:
        contrast_rows = contrast_columns = similarity
    normaliser = (contrast_rows.logsumexp(dim=1) + contrast_columns.logsumexp(dim=0)) / 2
    return (normaliser - similarity.diagonal()).sum() / max(len(left), 1)


class LearnedTemperature(nn.Module):
    """A temperature that is trained on a log scale and kept within bounds.

    The parameter itself is put back within the bounds at each use. Clamping only the output would
    leave a parameter that overshot without a gradient, and so stuck.

    Args:
        initial: Temperature at the start.
        minimum: Lower bound, positive; CLIP uses 0.01.
        maximum: Upper bound.

    Raises:
        ConfigError: The three are not in order or not positive.

    Example:
        >>> temperature = LearnedTemperature(0.1)
        >>> round(temperature().item(), 3)
        0.1
    """

    def __init__(self, initial: float = 0.1, minimum: float = 0.01, maximum: float = 1.0) -> None:
        super().__init__()
        if not 0 < minimum <= initial <= maximum < math.inf:
            raise ConfigError(
                "a learned temperature needs 0 < minimum <= initial <= maximum",
                got=(minimum, initial, maximum),
                fix="start within the bounds",
            )
        self.bounds = math.log(minimum), math.log(maximum)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(initial)))

    def forward(self) -> Tensor:
        """Give the temperature as a scalar tensor."""
        with torch.no_grad():
            self.log_temperature.clamp_(*self.bounds)
        return self.log_temperature.exp()


def alignment(a: Tensor, b: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean squared distance between the two views of an item, on the unit sphere.

    ``mean_n |a_n - b_n|^2`` (Wang & Isola, 2020, arXiv:2005.10242): 0 when all views agree, 2
    when they have nothing to do with each other, at most 4. No items give zero.

    Shapes:
        a, b: ``[N, D]``; mask: ``[N]`` bool; returns: scalar.

    Raises:
        DataError: Shapes that do not fit.

    Example:
        >>> alignment(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
        tensor(2.)
    """
    left, right = _partners(a, b, mask)
    return (left - right).square().sum() / max(len(left), 1)


def uniformity(x: Tensor, mask: Tensor | None = None, t: float = 2.0) -> Tensor:
    """Log of the mean Gaussian potential between items, on the unit sphere.

    ``log mean_{n<m} exp(-t |x_n - x_m|^2)`` (Wang & Isola, 2020, arXiv:2005.10242): 0 when all
    items coincide, and the lower the more evenly they spread. Fewer than two items give zero.
    Takes memory for all ``N (N - 1) / 2`` pairs, so pass a sample of a large catalogue.

    Shapes:
        x: ``[N, D]``; mask: ``[N]`` bool; returns: scalar, at most 0.

    Raises:
        DataError: Shapes that do not fit.

    Example:
        >>> uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))  # -2 * 2^2
        tensor(-8.)
    """
    points, _ = _partners(x, x, mask)
    if len(points) < 2:
        return points.sum() * 0
    exponents = -t * torch.pdist(points).square()
    return exponents.logsumexp(dim=0) - math.log(len(exponents))


def modality_gap(a: Tensor, b: Tensor, mask: Tensor | None = None) -> Tensor:
    """Distance between the centres of the two views, on the unit sphere.

    ``| mean_n a_n - mean_n b_n |`` (Liang et al., 2022, arXiv:2203.02053), between 0 and 2. A gap
    means that a view can be told by a plane, however well partners are ranked. No items give zero.

    Shapes:
        a, b: ``[N, D]``; mask: ``[N]`` bool; returns: scalar.

    Raises:
        DataError: Shapes that do not fit.

    Example:
        >>> modality_gap(torch.tensor([[1.0, 0.0]]), torch.tensor([[-3.0, 0.0]]))
        tensor(2.)
    """
    left, right = _partners(a, b, mask)
    gap: Tensor = torch.linalg.vector_norm((left - right).sum(dim=0))
    return gap / max(len(left), 1)


@torch.no_grad()
def retrieval_at_k(
    a: Tensor, b: Tensor, k: int = 10, mask: Tensor | None = None, block_size: int = 1024
) -> float:
    """Share of items whose view ``b`` is among the ``k`` nearest to their view ``a``, by cosine.

    Ties count as if they were broken at random, so a collapsed view, in which all items are
    alike, scores ``k / N`` and not 1. No items give 0.

    Args:
        a: The view that asks.
        b: The view that is searched.
        k: Length of the list, at least 1.
        mask: True for items that have both views; only they ask and are searched.
        block_size: Items that ask at once.

    Shapes:
        a, b: ``[N, D]``; mask: ``[N]`` bool.

    Raises:
        DataError: Shapes that do not fit.
        ConfigError: ``k`` is below 1.
        DataError: The shapes do not fit.

    Example:
        >>> a = torch.eye(3)
        >>> retrieval_at_k(a, a[[0, 2, 1]], k=1)  # 1 for the first, else the two swapped: 0
        0.3333333333333333
    """
    if k < 1:
        raise ConfigError("k must be at least 1", got=k, fix="10 is usual")
    left, right = _partners(a, b, mask)
    hits = 0.0
    for start in range(0, len(left), block_size):
        similarity = left[start : start + block_size] @ right.T
        own = similarity.diagonal(offset=start)[:, None]
        equal = torch.isclose(similarity, own, rtol=0.0, atol=1e-6)
        better = ((similarity > own) & ~equal).sum(dim=1)
        # The partner stands at random among its equals, itself included; NaN has none and misses.
        found = (k - better) / equal.sum(dim=1).clamp_min(1) * equal.any(dim=1)
        hits += found.clamp(0, 1).sum().item()
    return hits / max(len(left), 1)


def _partners(a: Tensor, b: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Check two views and give the unit vectors of the items that have both."""
    if a.dim() != 2 or a.shape != b.shape:
        raise DataError(
            "the two views must be matrices of one shape",
            got=(tuple(a.shape), tuple(b.shape)),
            fix="row n of both must be item n",
        )
    if mask is not None:
        if mask.dtype != torch.bool or mask.shape != a.shape[:1]:
            raise DataError(
                "mask must be one bool per item",
                got=(mask.dtype, tuple(mask.shape)),
                fix=f"pass a bool tensor of shape {(len(a),)}",
            )
        a, b = a[mask], b[mask]
    return F.normalize(a, dim=1), F.normalize(b, dim=1)
