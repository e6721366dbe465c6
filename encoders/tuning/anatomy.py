"""What a tower is made of: its blocks, what runs after them, and what reaches its output."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

__all__ = ["Anatomy", "examine", "reached"]


@dataclass(frozen=True)
class Anatomy:
    """Parts of a tower, in the order they run.

    Attributes:
        blocks: The layers that are repeated, such as those of a transformer.
        after: What first runs when the last block is done: norms, pooling, projections.
        reached: Parameters that the output depends on; others, such as the other tower of a
            two-tower model or a pooler that is not asked, have nothing to learn from it.
    """

    blocks: tuple[nn.Module, ...]
    after: tuple[nn.Module, ...]
    reached: frozenset[nn.Parameter]


def examine(tower: nn.Module, inputs: Any) -> Anatomy:
    """Watch one forward pass.

    Parts are told by what runs, not by names or by the order they are registered in, which each
    library chooses for itself.

    Args:
        tower: Anything that gives ``[B, D]``.
        inputs: What it takes, of one item.
    """
    began: dict[nn.Module, int] = {}
    ended: dict[nn.Module, int] = {}

    def begin(module: nn.Module, _: Any) -> None:
        began.setdefault(module, len(began) + len(ended))

    def end(module: nn.Module, *_: Any) -> None:
        ended.setdefault(module, len(began) + len(ended))

    handles = []
    for module in tower.modules():
        handles += [module.register_forward_pre_hook(begin), module.register_forward_hook(end)]
    try:
        parameters = reached(tower, inputs)
    finally:
        for handle in handles:
            handle.remove()
    blocks = sorted((b for b in _blocks(tower) if b in began), key=began.__getitem__)
    after: list[nn.Module] = []
    if blocks:
        last = ended[blocks[-1]]
        inside: set[nn.Module] = set()
        for module in tower.modules():  # parents come first
            if began.get(module, -1) > last and module not in inside:
                after.append(module)
                inside.update(module.modules())
    return Anatomy(tuple(blocks), tuple(after), parameters)


def reached(tower: nn.Module, inputs: Any) -> frozenset[nn.Parameter]:
    """Parameters that the output of a tower depends on; the tower is left in evaluation."""
    parameters = [p for p in tower.parameters() if p.is_floating_point()]
    before = [p.requires_grad for p in parameters]
    tower.eval()
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        with torch.enable_grad():
            gradients = torch.autograd.grad(tower(inputs).sum(), parameters, allow_unused=True)
    finally:
        for parameter, needed in zip(parameters, before, strict=True):
            parameter.requires_grad_(needed)
    pairs = zip(parameters, gradients, strict=True)
    return frozenset(p for p, gradient in pairs if gradient is not None)


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The innermost layers that stand in a list of their like, through all stages of a network."""
    inner = [block for child in module.children() for block in _blocks(child)]
    if inner:
        yield from inner
    elif isinstance(module, nn.ModuleList | nn.Sequential):
        kinds = {type(child) for child in module}
        if len(kinds) == 1 and all(any(True for _ in child.children()) for child in module):
            yield from module
