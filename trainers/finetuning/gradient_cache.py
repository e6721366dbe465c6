"""The gradients of a large batch in the memory of a small one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Pass", "cached_backward"]

Pass = tuple[Callable[[Any], Tensor], Sequence[Any]]
"""An encoder, and the chunks of inputs that pass it."""


def cached_backward(
    passes: Sequence[Pass],
    loss: Callable[..., Tensor],
    backward: Callable[[Tensor], object] = torch.Tensor.backward,
) -> Tensor:
    """Pass a contrastive loss backward through encoders, a chunk of the batch at a time.

    First all chunks are encoded without a graph; the loss gives the gradient of each row; then
    each chunk is encoded once more with a graph, and its rows' gradients are passed on (GradCache:
    Gao et al., 2021, arXiv:2101.06983). Both times the random numbers are the same, so dropout
    leaves out the same units. The gradients are those of the batch as a whole, but where a layer
    looks at other items: batch normalisation in training sees a chunk. Its running statistics
    move in the second pass only. A batch of one chunk is encoded once, the plain way.

    Args:
        passes: Encoders and their chunks; a chunk's rows stay in its order.
        loss: Takes the rows of each encoder, ``[N, D]``, and gives a scalar.
        backward: Called on what has a graph; gradients are added to the parameters'.

    Returns:
        The loss, without a graph.
    """
    if all(len(chunks) <= 1 for _, chunks in passes):
        rows = [encode(chunks[0]) for encode, chunks in passes if chunks]
        if len(rows) < len(passes):
            return torch.zeros(())
        value = loss(*rows)
        if value.requires_grad:
            backward(value)
        return value.detach()
    if not all(chunks for _, chunks in passes):
        return torch.zeros(())
    states: list[list[_RandomState]] = []
    encoded: list[Tensor] = []
    for encode, chunks in passes:
        states.append([])
        parts = []
        with torch.no_grad(), _statistics_kept(encode):
            for chunk in chunks:
                states[-1].append(_RandomState())
                parts.append(encode(chunk))
        encoded.append(torch.cat(parts).requires_grad_())
    after = _RandomState()
    value = loss(*encoded)
    backward(value)
    for (encode, chunks), whole, saved in zip(passes, encoded, states, strict=True):
        gradients = torch.zeros_like(whole) if whole.grad is None else whole.grad
        start = 0
        for chunk, state in zip(chunks, saved, strict=True):
            state.restore()
            again = encode(chunk)
            if again.requires_grad:
                backward((again * gradients[start : start + len(again)]).sum())
            start += len(again)
    after.restore()
    return value.detach()


class _RandomState:
    """Where the random generators stand, of the CPU and of all accelerators."""

    def __init__(self) -> None:
        self._cpu = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []

    def restore(self) -> None:
        """Put them back."""
        torch.set_rng_state(self._cpu)
        if self._cuda:
            torch.cuda.set_rng_state_all(self._cuda)


class _statistics_kept:  # noqa: N801
    """Puts back the running statistics that encoding moves."""

    def __init__(self, encode: Callable[[Any], Tensor]) -> None:
        modules = list(encode.modules()) if isinstance(encode, nn.Module) else []
        self._buffers = [
            buffer
            for module in modules
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training
            for buffer in module.buffers(recurse=False)
        ]

    def __enter__(self) -> None:
        self._kept = [buffer.clone() for buffer in self._buffers]

    def __exit__(self, *_: object) -> None:
        for buffer, kept in zip(self._buffers, self._kept, strict=True):
            buffer.copy_(kept)
