"""Rows of all processes, so that a batch is contrasted with everybody's."""

from __future__ import annotations

import torch
from torch import Tensor, distributed

__all__ = ["gather_rows"]


def gather_rows(rows: Tensor) -> tuple[Tensor, int]:
    """Put the rows of all processes one after the other, and say where the own ones start.

    Gradients of all losses flow back to the rows, as open_clip's ``gather_with_grad``: DDP takes
    the mean over processes, so the sum over losses is scaled back to that of one large batch.
    Processes may hold different numbers of rows. With one process the rows come back as they are.

    Shapes:
        rows: ``[N, ...]``; returns: ``[M, ...]`` with M the sum over processes, and the offset.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return rows, 0
    count = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.zeros_like(count) for _ in range(distributed.get_world_size())]
    distributed.all_gather(counts, count)
    sizes = [int(c) for c in counts]
    offset = sum(sizes[: distributed.get_rank()])
    if not rows.requires_grad:
        parts = _all_gather(rows, sizes)
        return torch.cat(parts), offset
    gathered: Tensor = _Gather.apply(rows, sizes, offset)
    return gathered, offset


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
