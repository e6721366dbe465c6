"""LoRA: a tower's linear maps, each with a trained product of two small matrices added.

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models" (arXiv:2106.09685), by peft.
Modules of few parameters beside them, norms and depthwise convolutions, may be trained as a whole
(Mudrakarta et al. 2019, "K For The Price Of 1", arXiv:1810.10703).
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mmalign.encoders.adapter import core_of
from mmalign.encoders.runtime import require
from mmalign.encoders.tuning.anatomy import Anatomy, reached
from mmalign.encoders.tuning.modes import Plan, Tuning
from mmalign.errors import ConfigError, nearest

if TYPE_CHECKING:
    from mmalign.encoders.tuning.towers import Tower

__all__ = ["add_lora", "merged"]


def add_lora(
    tower: nn.Module, inputs: Any, anatomy: Anatomy, tuning: Tuning, head: tuple[nn.Parameter, ...]
) -> tuple[Any, Plan]:
    """Put LoRA's matrices into a tower, which computes what it did before until they are trained.

    Args:
        tower: Changed in place.
        inputs: What it takes, of one item: to see that the matrices reach the output.
        anatomy: Of the tower as it was.
        tuning: ``rank``, ``alpha``, ``dropout``, ``targets`` and ``whole``.
        head: The tower's own projection, which is trained as a whole.

    Returns:
        peft's model of the library's own module, and what is trained.

    Raises:
        ConfigError: The tower has no such targets, or they cannot be adapted.
        MissingDependencyError: peft is not installed.
    """
    peft = require("peft", '"mmalign[finetune]"')
    core = core_of(tower)
    names = _named_targets(core, tuning.targets) if tuning.targets else _usual(core, anatomy, head)
    _check_rank(core, names, tuning.rank)
    whole = _whole(core, anatomy, names, tuning.whole)
    config = peft.LoraConfig(
        r=tuning.rank,
        lora_alpha=tuning.alpha,
        lora_dropout=tuning.dropout,
        target_modules=names,
        bias="none",
        modules_to_save=whole or None,
    )
    try:
        model = peft.get_peft_model(core, config)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise ConfigError(
            "LoRA cannot adapt these modules", got=str(error), fix="name others in targets"
        ) from error
    learning = reached(tower, inputs)
    added = {name: p for name, p in core.named_parameters() if "lora_" in name}
    copies = [p for name, p in core.named_parameters() if ".modules_to_save." in name]
    unread = {name.partition(".lora_")[0] for name, p in added.items() if p not in learning}
    if unread:
        raise ConfigError(
            "the model computes these modules by their weights alone, so LoRA has no effect",
            got=", ".join(sorted(unread)),
            fix="name others in targets",
        )
    blocks = [b for b in anatomy.blocks if any(map(_is_lora, b.modules()))]
    inside = {module for block in blocks for module in block.modules()}
    others = [m for m in core.modules() if _is_lora(m) and m not in inside]
    return model, Plan(tuple(added.values()), head, (*blocks, *others), tuple(copies))


def merged(tower: Tower) -> nn.Module:
    """Copy the library's own module, with adapters merged, to the CPU and its usual layout."""
    if tower.adapters is None:
        core = copy.deepcopy(core_of(tower.trunk))
    else:
        core = copy.deepcopy(tower.adapters).merge_and_unload()
    core = core.eval().cpu()
    return core.to(memory_format=torch.contiguous_format)


def _usual(core: nn.Module, anatomy: Anatomy, head: tuple[nn.Parameter, ...]) -> list[str]:
    """Linear maps of attention and feed-forward; 1x1 convolutions, which are linear maps too."""
    parts = (*anatomy.blocks, *anatomy.after) if anatomy.blocks else (core,)
    inside = {module for part in parts for module in part.modules()}
    whole = [m for m in core.modules() if isinstance(m, nn.MultiheadAttention)]
    inside -= {part for attention in whole for part in attention.children()}
    below = anatomy.reached - set(head)
    names = [
        name
        for name, module in core.named_modules()
        if module in inside
        and _is_linear_map(module)
        and any(p in below for p in module.parameters())
    ]
    if not names:
        raise ConfigError(
            "this tower has no linear maps that LoRA usually adapts",
            got=type(core).__name__,
            fix="name modules in targets, or use another mode",
        )
    return names


def _named_targets(core: nn.Module, targets: tuple[str, ...]) -> list[str]:
    adaptable = {n: m for n, m in core.named_modules() if _is_adaptable(m)}
    names: list[str] = []
    for target in targets:
        found = [n for n in adaptable if n == target or n.endswith(f".{target}")]
        found = found or [
            n for n, m in adaptable.items() if n.startswith(f"{target}.") and _is_linear_map(m)
        ]
        if not found:
            ends = {name.rpartition(".")[2] for name in adaptable}
            words = {end for end in ends if not end.isdigit()}
            raise ConfigError(
                "this tower has no module with the name of that LoRA target",
                got=target,
                fix=nearest(target, words or adaptable),
            )
        names += found
    grouped = [n for n in names if getattr(adaptable[n], "groups", 1) > 1]
    if grouped:
        raise ConfigError(
            "LoRA's product cannot be merged into a convolution in groups",
            got=grouped[0],
            fix="name 1x1 convolutions or linear maps in targets",
        )
    for name, module in core.named_modules():
        if isinstance(module, nn.MultiheadAttention) and f"{name}.out_proj" in names:
            raise ConfigError(
                "LoRA adapts nn.MultiheadAttention only as a whole",
                got=f"{name}.out_proj",
                fix=f"name {name.rpartition('.')[2]!r} in targets",
            )
    return names


def _check_rank(core: nn.Module, targets: list[str], rank: int) -> None:
    """Refuse a product that no target can use; on small ones beside large ones it does no harm."""
    modules: list[Any] = [core.get_submodule(name) for name in targets]
    weights = [
        m.out_proj.weight if isinstance(m, nn.MultiheadAttention) else m.weight for m in modules
    ]
    widest = max(min(weight.flatten(1).shape) for weight in weights)
    if rank > widest:
        raise ConfigError(
            "LoRA's rank is larger than that of every matrix it adapts",
            got=rank,
            fix=f"take {widest} at most; a usual rank is 4 to 16",
        )


def _whole(
    core: nn.Module, anatomy: Anatomy, targets: list[str], wanted: tuple[str, ...]
) -> list[str]:
    """Modules in the blocks that LoRA adapts, by the end of their names."""
    adapted = {core.get_submodule(name) for name in targets}
    blocks = [b for b in anatomy.blocks if adapted.intersection(b.modules())]
    inside = {module for block in blocks for module in block.modules()} - adapted
    there = {
        name
        for name, module in core.named_modules()
        if module in inside and any(p in anatomy.reached for p in module.parameters(recurse=False))
    }
    names: list[str] = []
    for want in wanted:
        found = sorted(n for n in there if n == want or n.endswith(f".{want}"))
        if not found:
            raise ConfigError(
                "the blocks that LoRA adapts have no such module to train whole",
                got=want,
                fix=nearest(want, {name.rpartition(".")[2] for name in there}),
            )
        names += found
    holding = [n for n in names if adapted.intersection(core.get_submodule(n).modules())]
    if holding:
        raise ConfigError(
            "a module to train whole holds modules that LoRA adapts",
            got=holding[0],
            fix="name its other parts, or take it out of targets",
        )
    # peft goes by the end of names, whatever comes before.
    every = {name for name, _ in core.named_modules()}
    struck = sorted(n for n in every - set(names) if names and n.endswith(tuple(names)))
    if struck:
        raise ConfigError(
            "a module to train whole has a namesake outside the blocks that LoRA adapts",
            got=struck[0],
            fix="leave it out of whole, or name that block in targets as well",
        )
    return names


def _is_linear_map(module: nn.Module) -> bool:
    if isinstance(module, nn.Conv2d):
        return module.kernel_size == (1, 1) and module.groups == 1
    return isinstance(module, nn.Linear | nn.MultiheadAttention)


def _is_adaptable(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(module, nn.MultiheadAttention) or (
        isinstance(weight, nn.Parameter) and weight.ndim > 1
    )


def _is_lora(module: nn.Module) -> bool:
    return hasattr(module, "lora_A") and hasattr(module, "base_layer")
