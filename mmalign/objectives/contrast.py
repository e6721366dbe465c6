"""Losses that tune encoders: each row of one side picks out its partners among rows of the other.

Rows are scaled to unit length here, and compared in at least single precision even where autocast
would round: a scale of 100 magnifies what is lost.

``left`` may hold fewer rows than ``right``: under several processes each asks with its own rows and
is answered by the rows of all. Row n of ``left`` then belongs to row ``offset + n`` of ``right``.

===============  =====================================================  ===========================
function         asks                                                   of
===============  =====================================================  ===========================
clip_loss        which is mine?                                         two views of an item
siglip_loss      is this one mine?, pair by pair                        two views of an item
behaviour_loss   which ones go with mine?, popular ones being likely    items that users take
===============  =====================================================  ===========================
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmalign.errors import ConfigError, DataError

__all__ = ["behaviour_loss", "clip_loss", "same_content", "siglip_loss"]


def clip_loss(
    left: Tensor,
    right: Tensor,
    scale: float | Tensor,
    *,
    ignore: Tensor | None = None,
    offset: int = 0,
) -> Tensor:
    """Cross-entropy of each row against all rows of the other side, one direction.

    ``mean_n (logsumexp_m s_nm - s_n(n + offset))`` with ``s = scale * cos``. The mean of both
    directions is CLIP's loss (Radford et al., 2021, arXiv:2103.00020).

    Args:
        left: Rows that ask.
        right: Rows that answer.
        scale: Inverse temperature, positive.
        ignore: True where an answer is no mistake, such as an equal text; partners are never
            ignored.
        offset: Row of ``right`` that belongs to the first of ``left``.

    Shapes:
        left: ``[N, D]``; right: ``[M, D]``; ignore: ``[N, M]``; returns: scalar, at least 0.

    Raises:
        ConfigError: A scale that is not positive.
        DataError: Shapes that do not fit, or a mask that is not bool.

    Example:
        >>> clip_loss(torch.eye(2), torch.eye(2), 1.0)  # log(1 + exp(-1))
        tensor(0.3133)
    """
    logits = _logits(left, right, scale, offset, ignore)
    partner = torch.arange(len(left), device=left.device) + offset
    if ignore is not None:
        logits = logits.masked_fill(_others(ignore, partner), -torch.inf)
    if not len(left):
        return logits.sum()
    return F.cross_entropy(logits, partner)


def siglip_loss(
    left: Tensor,
    right: Tensor,
    scale: float | Tensor,
    bias: float | Tensor,
    *,
    ignore: Tensor | None = None,
    offset: int = 0,
) -> Tensor:
    """Logistic loss of every pair by itself, summed over pairs, a mean over the rows that ask.

    ``-mean_n sum_m log sigmoid(z_nm (scale * cos_nm + bias))``, z being 1 for partners and -1
    elsewhere (SigLIP: Zhai et al., 2023, arXiv:2303.15343).

    Args:
        left: Rows that ask.
        right: Rows that answer.
        scale: Inverse temperature, positive.
        bias: Added to every logit; the paper starts at -10, since most pairs are no partners.
        ignore: As in :func:`clip_loss`.
        offset: As in :func:`clip_loss`.

    Shapes:
        left: ``[N, D]``; right: ``[M, D]``; ignore: ``[N, M]``; returns: scalar, at least 0.

    Raises:
        ConfigError: A scale that is not positive.
        DataError: Shapes that do not fit, or a mask that is not bool.

    Example:
        >>> siglip_loss(torch.eye(2), torch.eye(2), 1.0, 0.0)  # softplus(-1) + softplus(0)
        tensor(1.0064)
    """
    logits = _logits(left, right, scale, offset, ignore) + bias
    partner = torch.arange(len(left), device=left.device) + offset
    sign = -torch.ones_like(logits)
    sign[torch.arange(len(left)), partner] = 1
    terms = -F.logsigmoid(sign * logits)
    if ignore is not None:
        terms = terms.masked_fill(_others(ignore, partner), 0)
    return terms.sum() / max(len(left), 1)


def behaviour_loss(
    left: Tensor,
    right: Tensor,
    scale: float | Tensor,
    *,
    positives: Tensor,
    log_q: Tensor | None = None,
    ignore: Tensor | None = None,
    offset: int = 0,
) -> Tensor:
    """Softmax over the items of a batch, of which one row's partner is the drawn one.

    Other known positives of an item are taken out of its contrast: they are no mistakes. An item
    with several partners in a batch asks once for each, and contrasts each with negatives alone.
    Popular items stand in batches more often than chance; ``log_q`` is taken off their logits (Yi
    et al., 2019, "Sampling-bias-corrected neural modeling for large corpus item
    recommendations").

    Args:
        left: Items that ask.
        right: Items that answer.
        scale: Inverse temperature, positive.
        positives: True where two items are taken by the same users.
        log_q: Log probability of each answer to stand in a batch, finite.
        ignore: True where an answer is the item that asks.
        offset: As in :func:`clip_loss`.

    Shapes:
        left: ``[N, D]``; right: ``[M, D]``; positives, ignore: ``[N, M]``; log_q: ``[M]``.
        returns: scalar.

    Raises:
        ConfigError: A scale that is not positive.
        DataError: Shapes that do not fit, or a mask that is not bool.

    Example:
        >>> known = torch.tensor([[True, True], [False, True]])
        >>> behaviour_loss(
        ...     torch.eye(2), torch.eye(2), 1.0, positives=known
        ... )  # the second alone asks
        tensor(0.1566)
    """
    logits = _logits(left, right, scale, offset, positives, ignore)
    if log_q is not None:
        if log_q.shape != right.shape[:1]:
            raise DataError(
                "log_q must be one number per answer",
                got=tuple(log_q.shape),
                fix=f"pass shape {(len(right),)}",
            )
        logits = logits - log_q
    known = positives if ignore is None else positives | ignore
    partner = torch.arange(len(left), device=left.device) + offset
    logits = logits.masked_fill(_others(known, partner), -torch.inf)
    if not len(left):
        return logits.sum()
    return F.cross_entropy(logits, partner)


def same_content(left: Tensor, right: Tensor) -> Tensor:
    """Say where keys are equal: such items are no negatives of each other, ``[N, M]``.

    Example:
        >>> same_content(torch.tensor([7, 8]), torch.tensor([8, 7])).tolist()
        [[False, True], [True, False]]
    """
    return left[:, None] == right[None, :]


def _logits(
    left: Tensor, right: Tensor, scale: float | Tensor, offset: int, *masks: Tensor | None
) -> Tensor:
    """Check what all losses take, and give ``scale * cos``."""
    if not isinstance(scale, Tensor) and not scale > 0:
        raise ConfigError("scale must be positive", got=scale, fix="1 / temperature; 10 is usual")
    if left.dim() != 2 or right.dim() != 2 or left.shape[1] != right.shape[1]:
        raise DataError(
            "the two sides must be matrices of one width",
            got=(tuple(left.shape), tuple(right.shape)),
            fix="give both towers the same dim",
        )
    if not 0 <= offset <= len(right) - len(left):
        raise DataError(
            "every row that asks needs its partner among those that answer",
            got=f"{len(left)} rows from {offset} of {len(right)}",
            fix="row n of left belongs to row offset + n of right",
        )
    for mask in masks:
        if mask is None:
            continue
        if mask.dtype != torch.bool or mask.shape != (len(left), len(right)):
            raise DataError(
                "a mask must hold one bool per pair",
                got=(mask.dtype, tuple(mask.shape)),
                fix=f"pass a bool tensor of shape {(len(left), len(right))}",
            )
    dtype = torch.promote_types(torch.promote_types(left.dtype, right.dtype), torch.float32)
    with torch.autocast(left.device.type, enabled=False):
        cosines = F.normalize(left.to(dtype), dim=1) @ F.normalize(right.to(dtype), dim=1).T
    return scale * cosines


def _others(ignore: Tensor, partner: Tensor) -> Tensor:
    """``ignore`` without the partners themselves."""
    others = ignore.clone()
    others[torch.arange(len(partner), device=ignore.device), partner] = False
    return others
