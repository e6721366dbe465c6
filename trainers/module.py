"""The LightningModule that trains the aligned network."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from mmalign.data.catalog import Catalog
from mmalign.errors import TrainingError
from mmalign.evaluation.protocol import evaluate
from mmalign.graph.propagation import SparseOperator
from mmalign.interfaces import FloatArray, IntArray
from mmalign.models.aligned import Aligned
from mmalign.models.base import TrainData
from mmalign.models.network import States
from mmalign.objectives import alignment, ranking
from mmalign.trainers.average import WeightAverage
from mmalign.trainers.sampling import hold_out, sample_negatives
from mmalign.trainers.validation import log_valid

__all__ = ["AlignedModule"]

CONTRASTED_ITEMS = 1024


class AlignedModule(LightningModule):
    """Predicts held-out interactions from the others, and aligns content with the graph.

    In each step a share of the batch users' interactions, and all of some items that play cold,
    leave message passing and become targets: left in, the network would learn to copy them. Every
    random draw is a function of the seed, the step and the process, so that a resumed run goes
    on as if it had not stopped.

    Args:
        model: Prepared by ``fit``; its network is trained in place.
        data: What the model was prepared on.
        catalog: For validation; without valid rows there is none.
        seed: Of all draws.
    """

    def __init__(self, model: Aligned, data: TrainData, catalog: Catalog, *, seed: int) -> None:
        super().__init__()
        self.network = model.network
        followed = list(model.network.parameters())
        self.average = WeightAverage(followed, model.config.average, ramp=True)
        self._model, self._data, self._catalog, self._seed = model, data, catalog, seed
        self._warm_rows = np.flatnonzero(data.warm)
        self._matrix = sp.csr_matrix(data.matrix[:, self._warm_rows])
        warm = torch.from_numpy(self._warm_rows)
        self._items = model.item_input(data.features, model.teacher.content).rows(warm)
        self._similar = SparseOperator(model.similar[self._warm_rows][:, self._warm_rows])
        self._popularity = np.asarray(self._matrix.sum(axis=0)).ravel()
        shown = np.random.default_rng(seed).permutation(len(self._warm_rows))[:CONTRASTED_ITEMS]
        self._shown = torch.from_numpy(np.sort(shown))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW; all but the ids settle, and weight decay is on projections only."""
        config = self._model.config
        others = [p for n, p in self.network.named_parameters() if n != "ids"]
        groups = [
            {"params": [p for p in others if p.dim() > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in others if p.dim() <= 1], "weight_decay": 0.0},
            {"params": [self.network.ids], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=config.learning_rate)

        def settling(step: int) -> float:
            return min(1.0, config.settle_steps / max(step, 1))

        rates = LambdaLR(optimizer, [settling, settling, lambda _: 1.0])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rates, "interval": "step"}}

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """One step on the users of a batch, ``[B]`` rows of the train matrix."""
        config = self._model.config
        draw = [self._seed, self.global_step, self.global_rank]
        rng = np.random.default_rng(draw)
        torch.manual_seed(int(rng.integers(2**62)))
        users = batch.cpu().numpy()
        cold = rng.random(len(self._warm_rows)) < config.cold_share
        messages, targets = hold_out(self._matrix, users, config.supervision, cold, rng)

        items = self._items_on_device()
        content = self.network.content(items, self._hidden_modalities())
        hidden = torch.rand(len(content), device=self.device) < config.id_dropout
        hidden |= torch.from_numpy(cold).to(self.device)
        start = self.network.hear_neighbours(content, self._similar)
        start = start + self.network.ids * ~hidden[:, None]
        states = self.network.propagate(start, SparseOperator(messages))

        placed = torch.nn.functional.normalize(content, dim=1)
        losses = {
            "rank": self._rank(states.users[batch], states.items, targets, messages[users], rng),
            "content": self._rank(states.users[batch], placed, targets, messages[users], rng),
        }
        loss = losses["rank"] + config.content_weight * losses["content"]
        if config.alignment_weight:
            losses["alignment"] = self._align(states, rng)
            loss = loss + config.alignment_weight * losses["alignment"]
        if config.distillation_weight:
            scores = states.users[batch] @ states.items.T / self.network.temperature()
            losses["distillation"] = self._distil(scores, messages[users])
            loss = loss + config.distillation_weight * losses["distillation"]
        self._check_finite(loss, losses)
        self.log("train/loss", loss, prog_bar=True, on_step=False, on_epoch=True, sync_dist=True)
        for name, value in losses.items():
            self.log(f"train/{name}", value, on_step=False, on_epoch=True, sync_dist=True)
        return loss

    def _check_finite(self, loss: Tensor, losses: dict[str, Tensor]) -> None:
        """Stop all processes at once: one alone would leave the others waiting for gradients."""
        is_finite = bool(torch.isfinite(loss))
        if self.trainer.strategy.reduce_boolean_decision(is_finite, all=True):
            return
        raise TrainingError(
            "the loss is not finite",
            got={name: float(value.detach()) for name, value in losses.items()},
            fix="lower model.aligned.learning_rate or raise model.aligned.temperature",
        )

    def on_train_batch_end(self, outputs: Any, batch: Tensor, batch_idx: int) -> None:
        """Follow the weights; measure at the end of every epoch how far content and graph agree."""
        self.average.update()
        if not self.trainer.is_last_batch:
            return
        self.network.eval()
        for name, value in self._diagnose().items():
            name = f"diagnostics/{name}"
            self.log(name, value, on_step=False, on_epoch=True, sync_dist=True, batch_size=1)
        self.network.train()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """Nothing per batch: rankings are measured over all users at once."""

    def on_validation_epoch_end(self) -> None:
        """Measure the network alone on valid, by the running mean of its weights."""
        with self.average.applied():
            self._model.freeze(self._data)
        found = evaluate(_NetworkOnly(self._model), self._catalog, "valid", ks=(20,))
        log_valid(self, found)

    def finish(self) -> None:
        """Leave the network at the running mean of its weights."""
        self.average.apply_mean()

    def _rank(
        self,
        users: Tensor,
        items: Tensor,
        targets: sp.csr_matrix,
        known: sp.csr_matrix,
        rng: np.random.Generator,
    ) -> Tensor:
        temperature = self.network.temperature()
        if not self._model.config.negatives:
            return ranking.full_softmax(users @ items.T / temperature, targets, exclude=known)
        drawn = sample_negatives(
            targets, known, self._popularity, self._model.config.negatives, rng
        )
        negatives = torch.from_numpy(drawn.items).to(self.device)
        rows = torch.from_numpy(drawn.users).to(self.device)
        positives = torch.from_numpy(drawn.positives).to(self.device)
        shared = users @ items[negatives].T / temperature
        return ranking.sampled_softmax(
            (users[rows] * items[positives]).sum(dim=1) / temperature,
            shared[rows],
            log_q_negative=torch.from_numpy(drawn.log_q).to(self.device),
            negative_is_positive=torch.from_numpy(drawn.is_positive).to(self.device),
        )

    def _align(self, states: States, rng: np.random.Generator) -> Tensor:
        heard = states.received.detach().abs().sum(dim=1) > 0
        rows = np.flatnonzero(heard.cpu().numpy())
        index = torch.from_numpy(rng.permutation(rows)[:CONTRASTED_ITEMS]).to(self.device)
        items = self._items_on_device().rows(index)
        placed = torch.nn.functional.normalize(states.received[index], dim=1)
        temperature = self.network.temperature()
        losses = [
            alignment.info_nce(projected, placed, temperature, mask=items.present[name])
            for name, projected in self.network.project(items).items()
        ]
        return torch.stack(losses).mean()

    def _distil(self, scores: Tensor, history: sp.csr_matrix) -> Tensor:
        taught = torch.from_numpy(history @ self._model.teacher.weights).to(self.device)
        taught = taught / taught.std(dim=1, keepdim=True).clamp(min=1e-6)
        return ranking.kl_to_teacher(scores, taught)

    def _hidden_modalities(self) -> dict[str, Tensor]:
        rate = self._model.config.modality_dropout
        count = len(self._warm_rows)
        return {
            name: torch.rand(count, device=self.device) < rate for name in self._items.modalities
        }

    def _items_on_device(self) -> Any:
        if self._items.fused.device != self.device:
            self._items = self._items.to(self.device)
        return self._items

    @torch.no_grad()
    def _diagnose(self) -> dict[str, float]:
        """Measure a sample of warm items, always the same, which costs less than a step."""
        items = self._items_on_device()
        content = self.network.content(items)
        # An item's place holds its own content, so only what users brought can tell whether
        # content and graph agree.
        start = self.network.hear_neighbours(content, self._similar) + self.network.ids
        states = self.network.propagate(start, SparseOperator(self._matrix))
        shown = self._shown.to(self.device)
        items, content = items.rows(shown), content[shown]
        placed, received = states.items[shown], states.received[shown]
        found = {
            "alignment": float(alignment.alignment(content, placed)),
            "uniformity": float(alignment.uniformity(placed)),
            "content_retrieval@10": float(alignment.retrieval_at_k(content, received, k=10)),
        }
        for name, projected in self.network.project(items).items():
            gap = alignment.modality_gap(projected, placed, mask=items.present[name])
            found[f"modality_gap_{name}"] = float(gap)
        return found


class _NetworkOnly:
    """The network's own ranking, so that early stopping watches what is being trained."""

    def __init__(self, model: Aligned) -> None:
        self._model = model

    def score(self, history: sp.csr_matrix, items: IntArray) -> FloatArray:
        return self._model.network_scores(history)[:, items]
