"""What keeps a tuned encoder close to where it started, so that items nobody took stay usable."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["feature_drift", "similarity_drift", "weight_drift"]


def feature_drift(rows: Tensor, frozen: Tensor) -> Tensor:
    """Mean squared distance to the frozen rows, on the unit sphere; zero where there are none.

    Shapes:
        rows, frozen: ``[B, D]``; returns: scalar, from 0 to 4.

    Example:
        >>> feature_drift(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
        tensor(2.)
    """
    if not len(rows):
        return rows.sum() * 0
    return (F.normalize(rows, dim=1) - F.normalize(frozen, dim=1)).square().sum(dim=1).mean()


def similarity_drift(rows: Tensor, frozen: Tensor) -> Tensor:
    """Mean squared difference of the cosines between the items of a batch, before and now.

    Widths may differ, so a new projection may stand between them (relational distillation: Park
    et al., 2019, arXiv:1904.05068). A single item has no others to be like: zero.

    Shapes:
        rows: ``[B, D]``; frozen: ``[B, F]``; returns: scalar.

    Example:
        >>> similarity_drift(torch.eye(2), torch.ones(2, 3))
        tensor(1.0000)
    """
    if len(rows) < 2:
        return rows.sum() * 0
    now, before = F.normalize(rows, dim=1), F.normalize(frozen, dim=1)
    difference = now @ now.T - before @ before.T
    others = ~torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    return difference[others].square().mean()


def weight_drift(weights: Iterable[nn.Parameter], start: Sequence[Tensor]) -> Tensor:
    """Half the squared distance of weights to their start.

    L2-SP: Li et al., 2018, arXiv:1802.01483.

    Example:
        >>> weight_drift([nn.Parameter(torch.tensor([3.0, 4.0]))], [torch.zeros(2)])
        tensor(12.5000, grad_fn=<DivBackward0>)
    """
    terms = [(w - s.to(w)).square().sum() for w, s in zip(weights, start, strict=True)]
    return torch.stack(terms).sum() / 2
