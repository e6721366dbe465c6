"""The LightningModule that trains the neural baselines on one interaction at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from mmalign.data.catalog import Catalog
from mmalign.errors import TrainingError
from mmalign.evaluation.protocol import evaluate
from mmalign.interfaces import SLICES
from mmalign.models.base import TrainData
from mmalign.models.neural.base import NeuralModel, Triplets
from mmalign.trainers.sampling import UnseenItems
from mmalign.trainers.validation import log_valid

__all__ = ["PairwiseModule"]


class PairwiseModule(LightningModule):
    """Sets each interaction of a batch against items that its user did not take.

    What the loss is, the model says. Every random draw is a function of the seed, the step (or
    the epoch) and the process, so that a resumed run goes on as if it had not stopped.

    Args:
        model: Prepared by ``fit``; its network is trained in place.
        data: What the model was prepared on.
        catalog: For validation, on the slices that the model serves.
        seed: Of all draws.
    """

    def __init__(
        self, model: NeuralModel[Any], data: TrainData, catalog: Catalog, *, seed: int
    ) -> None:
        super().__init__()
        self.network = model.network
        self._model, self._data, self._catalog, self._seed = model, data, catalog, seed
        self._unseen = UnseenItems(sp.csr_matrix(data.matrix[:, data.warm]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam; regularisation is a term of the loss, as in the papers."""
        return torch.optim.Adam(self.network.parameters(), lr=self._model.config.learning_rate)

    def on_train_epoch_start(self) -> None:
        """Let the model draw what stays for an epoch; all processes draw the same."""
        self._model.begin_epoch(np.random.default_rng([self._seed, self.current_epoch]))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """One step on interactions ``[B, 2]``, users and warm items."""
        rng = np.random.default_rng([self._seed, self.global_step, self.global_rank])
        torch.manual_seed(int(rng.integers(2**62)))
        users, positives = batch.unbind(dim=1)
        drawn = self._unseen.draw(users.cpu().numpy(), self._model.config.negatives, rng)
        negatives = torch.from_numpy(drawn).to(batch.device)
        losses = self._model.loss(Triplets(users, positives, negatives))
        loss = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(loss):
            raise TrainingError(
                "the loss is not finite",
                got={name: float(value.detach()) for name, value in losses.items()},
                fix="lower the learning_rate of the model",
            )
        self.log("train/loss", loss, prog_bar=True, on_step=False, on_epoch=True, sync_dist=True)
        for name, value in losses.items():
            self.log(f"train/{name}", value, on_step=False, on_epoch=True, sync_dist=True)
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """Nothing per batch: rankings are measured over all users at once."""

    def on_validation_epoch_end(self) -> None:
        """Measure the ranking on valid, before any calibration of cold scores."""
        self._model.freeze(self._data)
        slices = SLICES if self._model.serves_cold else ("warm",)
        found = evaluate(self._model, self._catalog, "valid", ks=(20,), slices=slices)
        log_valid(self, found)
