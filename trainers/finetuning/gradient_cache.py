"""The gradients of a large batch in the memory of a small one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
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
    unsynced: Callable[[], AbstractContextManager[object]] | None = None,
) -> Tensor:
    """Pass a contrastive loss backward through encoders, a chunk of the batch at a time.

    First all chunks are encoded without a graph; the loss gives the gradient of each row; then
    each chunk is encoded once more with a graph, and its rows' gradients are passed on (GradCache:
    Gao et al., 2021, arXiv:2101.06983). Both times the random numbers are the same, so dropout
    leaves out the same units. The gradients are those of the batch as a whole, but where a layer
    looks at other items: batch normalisation in training sees a chunk. What a module keeps in
    buffers, such as running statistics, moves in the second pass only. A batch of one chunk is
    encoded once, the plain way.

    Args:
        passes: Encoders and their chunks; a chunk's rows stay in its order. Buffers are looked
            after where the encoder is a module.
        loss: Takes the rows of each encoder, ``[N, D]`` in at least single precision, and gives a
            scalar.
        backward: Called on what has a graph; gradients are added to the parameters'. It may scale
            what it is given, as against underflow in half precision.
        unsynced: Entered around each backward pass but the last, such as ``no_sync`` of a DDP
            module that holds all encoders and was told to find unused parameters. Processes stay
            in step however many chunks each has: with this given, one chunk is encoded twice too.

    Returns:
        The loss, without a graph.
    """
    if not all(chunks for _, chunks in passes):
        return torch.zeros((), device=_device(passes))
    if unsynced is None and all(len(chunks) == 1 for _, chunks in passes):
        value = loss(*(encode(chunks[0]) for encode, chunks in passes))
        if value.requires_grad:
            backward(value)
        return value.detach()
    unsynced = unsynced or nullcontext
    states: list[list[_RandomState]] = []
    encoded: list[Tensor] = []
    for encode, chunks in passes:
        states.append([])
        parts = []
        with torch.no_grad(), _buffers_kept(encode):
            for chunk in chunks:
                states[-1].append(_RandomState())
                parts.append(encode(chunk))
        rows = torch.cat(parts)
        # Rounded to half precision, gradients would vanish that are still to be scaled.
        encoded.append(rows.to(torch.promote_types(rows.dtype, torch.float32)).requires_grad_())
    torch.clear_autocast_cache()  # before torch 2.10 it holds weights that have lost their graph
    # Its gradient is what ``backward`` scales by, and will once more in the second pass.
    one = torch.ones((), dtype=encoded[0].dtype, device=encoded[0].device, requires_grad=True)
    with unsynced():
        value = loss(*encoded)
        backward(value + (one - 1))
    assert one.grad is not None
    scaled_by = one.grad.clone()
    after = _RandomState()
    for position, ((encode, chunks), whole, saved) in enumerate(
        zip(passes, encoded, states, strict=True), 1
    ):
        gradients = torch.zeros_like(whole) if whole.grad is None else whole.grad / scaled_by
        start = 0
        for number, (chunk, state) in enumerate(zip(chunks, saved, strict=True), 1):
            is_last = position == len(passes) and number == len(chunks)
            with nullcontext() if is_last else unsynced():
                state.restore()
                again = encode(chunk)
                passed_on = (again * gradients[start : start + len(again)]).sum()
                if passed_on.requires_grad or is_last:  # the last one has the processes meet
                    backward(passed_on + 0 * one)
                start += len(again)
    after.restore()
    return value.detach()


class _RandomState:
    """Where the random generators stand, of the CPU and of all accelerators."""

    def __init__(self) -> None:
        self._states = [(put, get()) for get, put in _generators()]

    def restore(self) -> None:
        """Put them back."""
        for put, state in self._states:
            put(state)


def _generators() -> Iterator[tuple[Callable[[], Any], Callable[[Any], None]]]:
    """Yield what reads and what sets the state of each kind of generator."""
    yield torch.get_rng_state, torch.set_rng_state
    if torch.cuda.is_available():
        yield torch.cuda.get_rng_state_all, torch.cuda.set_rng_state_all
    if torch.xpu.is_available():
        yield torch.xpu.get_rng_state_all, torch.xpu.set_rng_state_all
    if torch.backends.mps.is_available():
        yield torch.mps.get_rng_state, torch.mps.set_rng_state


@contextmanager
def _buffers_kept(encode: Callable[[Any], Tensor]) -> Iterator[None]:
    """Put back what encoding moves: running statistics, or vectors of a power iteration."""
    buffers = list(encode.buffers()) if isinstance(encode, nn.Module) else []
    kept = [buffer.clone() for buffer in buffers]
    yield
    for buffer, before in zip(buffers, kept, strict=True):
        buffer.copy_(before)


def _device(passes: Sequence[Pass]) -> torch.device | None:
    """Where the encoders are, so that their loss can be added to others; None if none has any."""
    modules = (encode for encode, _ in passes if isinstance(encode, nn.Module))
    return next((p.device for module in modules for p in module.parameters()), None)
