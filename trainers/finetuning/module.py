"""The LightningModule that tunes encoder towers by contrast."""

from __future__ import annotations

import math
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import reduce
from typing import Any, NoReturn

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from mmalign.errors import ConfigError, DataError, TrainingError
from mmalign.finetuning import FinetuneConfig
from mmalign.interfaces import Tower
from mmalign.objectives.alignment import LearnedTemperature
from mmalign.trainers.average import WeightAverage
from mmalign.trainers.checkpoints import last_saved
from mmalign.trainers.finetuning.contents import Contents
from mmalign.trainers.finetuning.drift import feature_drift, similarity_drift, weight_drift
from mmalign.trainers.finetuning.gradient_cache import cached_backward
from mmalign.trainers.finetuning.graph import reports_of
from mmalign.trainers.finetuning.halves import Half, Objective
from mmalign.trainers.finetuning.schedule import warmup_cosine
from mmalign.trainers.finetuning.validation import encode_rows, to_device

__all__ = ["FinetuneModule"]

SIGLIP_BIAS = -10.0
TEMPERATURE = 0.07


class FinetuneModule(LightningModule):
    """Encodes the items that an objective puts together, and contrasts them.

    Optimisation is by hand: one objective after the other is passed backward, a batch in chunks if
    the config says so, and then one step is taken. Every random draw is a function of the seed,
    the step and the process, so that a resumed run goes on as if it had not stopped.

    Args:
        towers: Modality to its tower, trained in place.
        objectives: What is asked of the rows of which items.
        config: Rates, temperature, drift guard.
        contents: What is read of each item; the drift guard encodes it before training.
        validate: Gives the metrics of an epoch.
        seed: Of all draws.
        began: When the run did, by ``time.perf_counter``.

    Attributes:
        problems: Modality to item id to the reason why training could not read it.
        seconds_before: Of the runs that this one goes on from.
    """

    def __init__(
        self,
        towers: Mapping[str, Tower],
        objectives: Sequence[Objective],
        config: FinetuneConfig,
        *,
        contents: Contents,
        validate: Callable[[], Mapping[str, float]],
        seed: int,
        began: float,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.towers = nn.ModuleDict(towers)  # type: ignore[arg-type]
        self.temperature = LearnedTemperature(
            config.temperature or TEMPERATURE, *config.temperature_bounds()
        )
        bias = SIGLIP_BIAS if config.bias is None else config.bias
        self.bias = nn.Parameter(torch.tensor(float(bias)), requires_grad=config.loss == "siglip")
        self._towers, self._config, self._validate = towers, config, validate
        self._objectives = {objective.name: objective for objective in objectives}
        self.memories = nn.ModuleList(o for o in objectives if isinstance(o, nn.Module))
        self._seed = seed
        self.problems: dict[str, dict[str, str]] = {}
        self.seconds_before, self._began = 0.0, began
        self._frozen: dict[str, Tensor] = {}
        if config.drift in ("features", "similarity"):
            is_likeness = config.drift == "similarity"  # of the encoder, not of a new projection
            for name in dict.fromkeys(half for o in objectives for half in o.halves):
                tower = towers[name.partition(".")[0]]
                if any(tower.trainable().values()):
                    self._frozen[name] = encode_rows(
                        tower, contents.plain[name], below_projection=is_likeness
                    ).values
        trunks = [
            p
            for tower in towers.values()
            for part, parameters in tower.trainable().items()
            if part != "projection"
            for p in parameters
        ]
        self._start = [p.detach().clone() for p in trunks] if config.drift == "weights" else []
        self._trunks = trunks
        followed = [
            p for tower in towers.values() for part in tower.trainable().values() for p in part
        ]
        self.average = WeightAverage(followed, config.average) if config.average else None

    def configure_optimizers(self) -> Any:
        """AdamW with a rate per tower; weight decay on matrices only."""
        config = self._config
        groups: list[dict[str, Any]] = []
        for modality, tower in self._towers.items():
            rates = {
                "trunk": config.tower(modality).learning_rate,
                "whole": config.learning_rate,
                "projection": config.learning_rate,
            }
            for part, parameters in tower.trainable().items():
                for decay, has_it in ((config.weight_decay, True), (0.0, False)):
                    chosen = [p for p in parameters if (p.dim() > 1) == has_it]
                    groups.append({"params": chosen, "lr": rates[part], "weight_decay": decay})
        scale = [self.temperature.log_temperature, self.bias]
        groups.append({"params": scale, "lr": config.learning_rate, "weight_decay": 0.0})
        optimizer = torch.optim.AdamW([group for group in groups if group["params"]])
        schedule = warmup_cosine(optimizer, self._num_steps(), config.warmup)
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def _num_steps(self) -> int:
        """Steps of the optimizer in the whole run; the last group of an epoch may be short."""
        trainer = self.trainer
        if trainer.max_steps == -1 and trainer.max_epochs in (None, -1):
            raise ConfigError(
                "the learning rate falls over the whole run, so its length has to be known",
                got={"max_epochs": trainer.max_epochs, "max_steps": trainer.max_steps},
                fix="set trainer.max_epochs or trainer.max_steps",
            )
        steps = math.inf if trainer.max_steps == -1 else trainer.max_steps
        if trainer.max_epochs not in (None, -1):
            groups = math.ceil(self._epoch_steps() / self._config.accumulate)
            steps = min(steps, trainer.max_epochs * groups)
        return int(steps)

    def _epoch_steps(self) -> int:
        """Batches of an epoch; asked of Lightning, its loader would be made before a resume."""
        module: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        limit = self.trainer.limit_train_batches
        steps: int = module.num_steps
        return min(steps, limit) if isinstance(limit, int) else int(steps * limit)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep how long it took so far."""
        checkpoint["seconds"] = self.seconds_before + time.perf_counter() - self._began

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on counting."""
        self.seconds_before = checkpoint.get("seconds", 0.0)

    def on_train_epoch_start(self) -> None:
        """Start the clock."""
        self._started, self._items, self._compared = time.perf_counter(), 0, 0

    def training_step(self, batch: Sequence[tuple[str, list[Half]]], batch_idx: int) -> None:
        """Pass each objective backward; step when enough batches have been."""
        rng = np.random.default_rng([self._seed, self.current_epoch, batch_idx, self.global_rank])
        torch.manual_seed(int(rng.integers(2**62)))
        counts = Counter(half.modality for _, halves in batch for half in halves)
        losses: dict[str, Tensor] = {}
        drift = torch.zeros((), device=self.device)
        for name, halves in batch:
            losses[name], moved = self._backward(self._objectives[name], halves, counts)
            drift += moved
        if self._start:
            moved = self._config.drift_weight * weight_drift(self._trunks, self._start)
            self.manual_backward(moved / self._config.accumulate)
            drift += moved.detach()
        if self._config.drift != "none":
            losses["drift"] = drift
        self._check_finite(losses)
        if (batch_idx + 1) % self._config.accumulate == 0 or self.trainer.is_last_batch:
            self._step()
        losses["loss"] = torch.stack(list(losses.values())).sum()
        for name, value in losses.items():
            self.log(
                f"train/{name}",
                value,
                prog_bar=name == "loss",
                on_step=False,
                on_epoch=True,
                sync_dist=True,
                batch_size=1,
            )
        if self.trainer.is_last_batch:
            self._check_read()
            self._report()
        if self.trainer.is_last_batch or self.global_step == self.trainer.max_steps:
            self._check_weights()

    def _backward(
        self, objective: Objective, halves: list[Half], counts: Mapping[str, int]
    ) -> tuple[Tensor, Tensor]:
        """One objective's loss on a batch and its part of the drift; gradients are added.

        A tower's drift is the mean over all ``counts`` halves that it reads in the step.
        """
        terms = [torch.zeros((), device=self.device) for _ in range(2)]

        def loss(*rows: Tensor) -> Tensor:
            value = objective.weight * objective.loss(self, rows, halves)
            drift = torch.zeros_like(value)
            for name, half, encoded in zip(objective.halves, halves, rows, strict=True):
                if name in self._frozen:
                    drift = drift + self._drift(name, half, encoded) / counts[half.modality]
            drift = self._config.drift_weight * drift
            terms[:] = value.detach(), drift.detach()
            return (value + drift) / self._config.accumulate

        passes = [
            (self._encoder(half), [to_device(c, self.device) for c in half.chunks or [None]])
            for half in halves
        ]
        self._items += sum(len(half.rows) for half in halves)
        in_common = reduce(np.intersect1d, [half.positions for half in halves])
        self._compared += len(in_common) > 1
        for half in halves:
            if half.problems:
                self.problems.setdefault(half.modality, {}).update(half.problems)
        wrapped = self.trainer.strategy.model
        unsynced = None
        if self._config.chunk_size is not None and isinstance(wrapped, DistributedDataParallel):
            unsynced = wrapped.no_sync
        cached_backward(passes, loss, self.manual_backward, unsynced)
        return terms[0], terms[1]

    def _encoder(self, half: Half) -> Callable[[Any], Tensor]:
        """The half's tower; batch normalisation cannot train on one item, so it is not let to."""
        tower = self.towers[half.modality]
        if min(half.sizes, default=2) > 1:
            return tower

        norms = [m for m in tower.modules() if isinstance(m, _BatchNorm) and m.training]

        def alone(inputs: Any) -> Tensor:
            for norm in norms:
                norm.eval()
            rows: Tensor = tower(inputs)
            for norm in norms:
                norm.train()
            return rows

        return alone

    def _drift(self, name: str, half: Half, encoded: Tensor) -> Tensor:
        frozen = self._frozen[name][half.rows].to(encoded)
        measure = feature_drift if self._config.drift == "features" else similarity_drift
        return measure(encoded, frozen)

    def _step(self) -> None:
        optimizer, schedule = self.optimizers(), self.lr_schedulers()
        # Half precision multiplies gradients, and divides them again inside the step.
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        scale = 1.0 if scaler is None else scaler.get_scale()
        self.clip_gradients(
            optimizer,  # type: ignore[arg-type]
            gradient_clip_val=self._config.max_norm * scale,
            gradient_clip_algorithm="norm",
        )
        optimizer.step()  # type: ignore[union-attr]
        optimizer.zero_grad()  # type: ignore[union-attr]
        schedule.step()  # type: ignore[union-attr]
        if self.average is not None:
            self.average.update()

    def _check_finite(self, losses: Mapping[str, Tensor]) -> None:
        """Stop all processes at once: one alone would leave the others waiting for gradients."""
        is_finite = all(bool(torch.isfinite(value)) for value in losses.values())
        if not self.trainer.strategy.reduce_boolean_decision(is_finite, all=True):
            self._stop("loss is", got={name: float(value) for name, value in losses.items()})

    def _check_weights(self) -> None:
        """A last step, of an epoch or of all, has no loss after it that would show its harm."""
        broken = [
            name
            for name, value in self.state_dict().items()
            if value.is_floating_point() and not torch.isfinite(value).all()
        ]
        if not self.trainer.strategy.reduce_boolean_decision(not broken, all=True):
            self._stop("weights are", got=f"{len(broken)} tensors, {', '.join(broken[:1])}")

    def _stop(self, what: str, *, got: object) -> NoReturn:
        """Say what is not finite, and how to get at the last good weights."""
        saved, done = last_saved(self.trainer), self.current_epoch
        fix = "start anew with a lower learning_rate of towers or projections"
        if saved:
            kept = f"--ckpt_path {saved} --trainer.max_epochs {done} writes the last good weights"
            fix = f"{kept}; or {fix}"
        else:
            fix = f"nothing was saved yet, so {fix}"
        raise TrainingError(f"the {what} not finite in epoch {done + 1}", got=got, fix=fix)

    def _check_read(self) -> None:
        """An epoch in which nothing could be compared taught nothing."""
        if self.trainer.strategy.reduce_boolean_decision(self._compared > 0, all=False):
            return
        unread = [
            f"{modality} of {len(items):,} items unread, {next(iter(items))}: "
            f"{next(iter(items.values()))}"
            for modality, items in self.problems.items()
        ]
        raise DataError(
            f"nothing could be compared in epoch {self.current_epoch + 1}",
            got="; ".join(unread) or "no item that has both",
            fix="check data.path, data.image and data.text with mmalign validate",
        )

    def _report(self) -> None:
        """Log speed and memory with an epoch's last batch, so that callbacks find them."""
        seconds = time.perf_counter() - self._started
        found = {
            "items_per_second": self._items / max(seconds, 1e-9),
            "peak_memory_gb": _peak_memory(self.device),
            "temperature": float(self.temperature().detach()),
            **reports_of(self._objectives),
        }
        for name, value in found.items():
            self.log(
                f"train/{name}", value, on_step=False, on_epoch=True, sync_dist=True, batch_size=1
            )

    def finish(self) -> None:
        """Leave the towers at the running mean of their weights, where there is one."""
        if self.average is not None:
            self.average.apply_mean()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """Nothing per batch: rankings are measured over all items at once."""

    def on_validation_epoch_end(self) -> None:
        """Measure retrieval on valid, by the running mean of weights where there is one."""
        with nullcontext() if self.average is None else self.average.applied():
            found = self._validate()
        for name, value in found.items():
            bar = name == "retrieval"
            self.log(f"valid/{name}", value, prog_bar=bar, rank_zero_only=False, sync_dist=True)


def _peak_memory(device: torch.device) -> float:
    """Most memory held so far, in GB: of the device, or of the process where it is the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
