"""A tower in two parts: what is frozen below its first trained block, and the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from mmalign.errors import ConfigError

__all__ = ["Split"]


class Split:
    """Runs the frozen lower part of a tower and the rest apart.

    What a frozen part makes of a picture need not be computed again each time the picture is seen.

    Args:
        trunk: ``[B, 3, H, W]`` to ``[B, D]``.
        first: Its first trained block; None splits after the last layer.
        sample: Inputs of one item.

    Raises:
        ConfigError: The blocks above need more than what the block before hands on.
    """

    def __init__(self, trunk: nn.Module, first: nn.Module | None, sample: torch.Tensor) -> None:
        self._trunk, self._first, self._sample = trunk, first, sample
        generator = torch.Generator().manual_seed(0)
        noise = torch.rand((2, *sample.shape[1:]), generator=generator).to(sample)
        with torch.no_grad():
            whole, parts = trunk(noise), self.upper(self.lower(noise))
        if whole.shape != parts.shape or not torch.allclose(whole, parts, rtol=1e-3, atol=1e-4):
            raise ConfigError(
                "this tower cannot be split below its trained blocks",
                got=type(trunk).__name__,
                fix="set views: 0",
            )

    @torch.no_grad()
    def lower(self, inputs: torch.Tensor) -> torch.Tensor:
        """What the first trained block is given, ``[B, ...]``."""
        if self._first is None:
            rows: torch.Tensor = self._trunk(inputs)
            return rows

        def stop(block: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
            raise _ReachedError(given[0])

        try:
            self._run(stop, inputs)
        except _ReachedError as reached:
            return reached.hidden
        raise AssertionError("the first trained block did not run")

    def upper(self, hidden: torch.Tensor) -> torch.Tensor:
        """Rows ``[B, D]`` from what :meth:`lower` gave, with gradients."""
        if self._first is None:
            return hidden

        def replace(block: nn.Module, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            return hidden, *given[1:]

        return self._run(replace, self._sample.to(hidden.device))

    def _run(self, hook: Callable[..., Any], inputs: torch.Tensor) -> torch.Tensor:
        assert self._first is not None
        handle = self._first.register_forward_pre_hook(hook)
        try:
            rows: torch.Tensor = self._trunk(inputs)
            return rows
        finally:
            handle.remove()


class _ReachedError(Exception):
    """Ends a forward pass where its rest is not wanted."""

    def __init__(self, hidden: torch.Tensor) -> None:
        super().__init__()
        self.hidden = hidden
