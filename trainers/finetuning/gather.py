"""Rows of all processes, so that a batch is contrasted with everybody's."""

from __future__ import annotations

import torch
from torch import Tensor, distributed

__all__ = ["gather_rows", "share_of_mean"]


def gather_rows(rows: Tensor) -> tuple[Tensor, int]:
    """Put the rows of all processes one after the other, and say where the own ones start.

    Gradients of all losses flow back to the rows, as open_clip's ``gather_with_grad``: DDP takes
    the mean over processes, so the sum over losses is scaled back to that of one large batch.
    Processes may hold different numbers of rows, none included; see :func:`share_of_mean`. With
    one process the rows come back as they are, with several in at least single precision.

    All processes must call this, and pass the loss backward if any of them does.

    Shapes:
        rows: ``[N, ...]``; returns: ``[M, ...]`` with M the sum over processes, and the offset.
    """
    if not _is_distributed():
        return rows, 0
    if rows.is_floating_point():  # nothing to encode gives rows that autocast never saw
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
    mine = torch.tensor([len(rows), rows.requires_grad], device=rows.device)
    everybody = [torch.zeros_like(mine) for _ in range(distributed.get_world_size())]
    distributed.all_gather(everybody, mine)
    sizes, with_gradient = (column.tolist() for column in torch.stack(everybody).T)
    offset = sum(sizes[: distributed.get_rank()])
    if not any(with_gradient):
        return torch.cat(_all_gather(rows, sizes)), offset
    if not rows.requires_grad:  # the others wait for this process in their backward pass
        rows = rows.detach().requires_grad_()
    gathered: Tensor = _Gather.apply(rows, sizes, offset)
    return gathered, offset


def share_of_mean(count: int, total: int) -> float:
    """What the mean over own rows is multiplied by, so that DDP's mean is that over all rows.

    Args:
        count: Rows that ask in this process.
        total: Rows that ask in all processes.

    Returns:
        1 where all processes hold the same number.

    Example:
        >>> share_of_mean(4, 4)  # one process
        1.0
    """
    world = distributed.get_world_size() if _is_distributed() else 1
    return count * world / max(total, 1)


def _is_distributed() -> bool:
    return distributed.is_available() and distributed.is_initialized()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, rows: Tensor, sizes: list[int], offset: int) -> Tensor:
        ctx.own = slice(offset, offset + len(rows))  # type: ignore[attr-defined]
        return torch.cat(_all_gather(rows, sizes))

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> tuple[Tensor, None, None]:
        whole = gradient.contiguous().clone()
        distributed.all_reduce(whole)
        return whole[ctx.own], None, None  # type: ignore[attr-defined]


def _all_gather(rows: Tensor, sizes: list[int]) -> list[Tensor]:
    """Gather parts of different length: shorter ones are padded on the way."""
    most = max(sizes)
    padded = torch.zeros(most, *rows.shape[1:], dtype=rows.dtype, device=rows.device)
    padded[: len(rows)] = rows.detach()
    parts = [torch.zeros_like(padded) for _ in sizes]
    distributed.all_gather(parts, padded)
    return [part[:size] for part, size in zip(parts, sizes, strict=True)]
