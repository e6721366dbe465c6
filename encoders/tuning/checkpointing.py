"""Activation checkpointing: a block's activations are computed twice rather than kept.

Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost" (arXiv:1604.06174).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from mmalign.errors import ConfigError

__all__ = ["checkpoint_blocks"]


def checkpoint_blocks(blocks: Sequence[nn.Module]) -> None:
    """Keep of these blocks only their inputs until the backward pass.

    The libraries' own switches differ in name and reach: some models have none, some say yes and
    do nothing, others keep the inputs of frozen blocks, for which nothing need be kept.

    Args:
        blocks: Those that gradients pass.

    Raises:
        ConfigError: There are none.
    """
    if not blocks:
        raise ConfigError(
            "this tower has no repeated blocks to checkpoint",
            fix="set checkpointing: false, and chunk_size or a smaller batch_size instead",
        )
    for block in blocks:
        block.forward = partial(_forward, block, block.forward)


def _forward(block: nn.Module, forward: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs, **named)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _kept_statistics(block)

    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts, **named)


@contextmanager
def _kept_statistics(block: nn.Module) -> Iterator[None]:
    """The second pass sees the same batch, which must not count twice in running statistics."""
    norms = [m for m in block.modules() if isinstance(m, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
