"""What each mode trains of a tower, and what it leaves as it was."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmalign.encoders.tuning.anatomy import Anatomy
from mmalign.errors import ConfigError, nearest

__all__ = ["MODES", "AsItIs", "Plan", "Tuning", "own_projection", "plan"]

MODES = ("frozen", "head", "last_n", "lora", "full")


class Tuning(Protocol):
    """What is trained of one tower; a config dataclass will do."""

    @property
    def mode(self) -> str:
        """One of :data:`MODES`."""
        ...

    @property
    def last_n(self) -> int:
        """Blocks that ``last_n`` trains."""
        ...

    @property
    def rank(self) -> int:
        """Of LoRA's matrices."""
        ...

    @property
    def alpha(self) -> float:
        """Of LoRA, whose product is scaled by ``alpha / rank``."""
        ...

    @property
    def dropout(self) -> float:
        """Of LoRA's input."""
        ...

    @property
    def targets(self) -> tuple[str, ...]:
        """Modules that LoRA adapts, by the end of their names, or blocks; empty for the usual."""
        ...

    @property
    def whole(self) -> tuple[str, ...]:
        """Modules in the blocks that LoRA adapts which are trained whole, by the end of names."""
        ...

    @property
    def dim(self) -> int | None:
        """Width of the rows; None leaves the tower's own."""
        ...

    @property
    def hidden(self) -> int:
        """Width of a new projection's hidden layer; 0 for a linear one."""
        ...

    @property
    def checkpointing(self) -> bool:
        """Whether activations are computed twice rather than kept."""
        ...

    @property
    def test_views(self) -> Literal[1, 2, 4] | None:
        """Views of a picture that are averaged outside training; None as the preset says."""
        ...

    @property
    def views(self) -> int:
        """Altered views of a picture that the frozen part sees; 0 alters it anew each time."""
        ...

    @property
    def preprocess(self) -> Mapping[str, Any]:
        """Overrides of the preset's picture preprocessing."""
        ...

    @property
    def max_length(self) -> int | None:
        """Tokens kept of a text; None for the preset's."""
        ...


@dataclass(frozen=True)
class AsItIs:
    """A :class:`Tuning` that trains and changes nothing."""

    mode: str = "frozen"
    last_n: int = 0
    rank: int = 0
    alpha: float = 0
    dropout: float = 0
    targets: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    dim: int | None = None
    hidden: int = 0
    checkpointing: bool = False
    test_views: Literal[1, 2, 4] | None = None
    views: int = 0
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    max_length: int | None = None


@dataclass(frozen=True)
class Plan:
    """What a mode trains below a projection that stands on top.

    Attributes:
        trunk: Parameters of the tower.
        head: Those of its own projection.
        whole: Those of modules that LoRA leaves alone and that are trained beside it.
        units: Modules that run as in training; everything else keeps running as it was
            pretrained to, without dropout and with its running statistics. None for all.
    """

    trunk: tuple[nn.Parameter, ...]
    head: tuple[nn.Parameter, ...]
    units: tuple[nn.Module, ...] | None = ()
    whole: tuple[nn.Parameter, ...] = ()

    def apply(self, tower: nn.Module) -> None:
        """Let exactly these parameters have gradients."""
        tower.requires_grad_(False)
        for parameter in (*self.trunk, *self.head, *self.whole):
            parameter.requires_grad_(True)

    def settle(self, tower: nn.Module) -> None:
        """Of a tower that was set to training, set back what is not trained."""
        if self.units is None:
            return
        tower.eval()
        for unit in self.units:
            unit.train()
        for module in tower.modules():
            if isinstance(module, _BatchNorm) and not any(
                p.requires_grad for p in module.parameters(recurse=False)
            ):
                module.eval()


def plan(tower: nn.Module, anatomy: Anatomy, tuning: Tuning, head: Iterable[nn.Parameter]) -> Plan:
    """Choose what a mode trains; of LoRA only what it leaves of the tower itself, its projection.

    Args:
        tower: Without the projection on top.
        anatomy: Of the tower.
        tuning: Names the mode.
        head: The tower's own projection.

    Raises:
        ConfigError: There is no such mode, or the tower has not that many blocks.
    """
    own = tuple(p for p in head if p in anatomy.reached)
    if tuning.mode == "frozen":
        return Plan((), ())
    if tuning.mode in ("head", "lora"):
        return Plan((), own)
    below = anatomy.reached - set(own)
    rest = [p for p in tower.parameters() if p in below]
    if tuning.mode == "full":
        return Plan(tuple(rest), own, units=None)
    if tuning.mode != "last_n":
        raise ConfigError(
            "a tower has no such mode", got=tuning.mode, fix=nearest(tuning.mode, MODES)
        )
    units = (*_last(anatomy.blocks, tuning.last_n), *anatomy.after)
    chosen = {p for unit in units for p in unit.parameters()}
    return Plan(tuple(p for p in rest if p in chosen), own, units)


def own_projection(core: nn.Module) -> list[nn.Parameter]:
    """Parameters of the projection into the shared space that open_clip's towers end with.

    Args:
        core: The tower as open_clip has it; the text tower may be the whole model.
    """
    tower: Any = getattr(core, "text", core)
    for name in ("text_projection", "proj", "head"):
        part = getattr(tower, name, None)
        if isinstance(part, nn.Parameter):
            return [part]
        if isinstance(part, nn.Module) and (parameters := list(part.parameters())):
            return parameters
    if hasattr(tower, "trunk") and hasattr(tower.trunk, "get_classifier"):
        return list(tower.trunk.get_classifier().parameters())
    if hasattr(tower, "attnpool"):
        return list(tower.attnpool.c_proj.parameters())
    return []


def _last(blocks: tuple[nn.Module, ...], count: int) -> tuple[nn.Module, ...]:
    if not blocks:
        raise ConfigError(
            "this tower has no repeated blocks to train the last of", fix="use mode lora or full"
        )
    if not 1 <= count <= len(blocks):
        raise ConfigError(
            f"this tower has {len(blocks)} blocks",
            got=f"last_n={count}",
            fix="name as many or less",
        )
    return blocks[-count:]
