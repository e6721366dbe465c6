"""What encoder fine-tuning is told: the mode of each tower, the objectives, the batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from mmalign.errors import ConfigError, nearest

__all__ = ["Drift", "FinetuneConfig", "Mode", "Objective", "TowerConfig"]

Mode = Literal["frozen", "head", "last_n", "lora", "full"]
Objective = Literal["image_text", "behaviour", "text_pairs", "graph"]
Drift = Literal["none", "features", "weights", "similarity"]


@dataclass(frozen=True)
class TowerConfig:
    """What is trained of one encoder.

    Attributes:
        mode: ``frozen``; ``head``, the projection alone; ``last_n`` blocks; ``lora``; ``full``.
        last_n: Blocks that ``last_n`` trains.
        rank: Of LoRA's matrices (Hu et al. 2021, arXiv:2106.09685).
        alpha: Of LoRA: its product is scaled by ``alpha / rank``.
        dropout: Of LoRA's input.
        targets: Modules that LoRA adapts, by the end of their names; the name of a block stands for
            the linear maps in it. Empty means the library's usual ones.
        whole: Modules in the blocks that LoRA adapts which are trained whole beside it, by the end
            of their names: norms, which are few numbers, and depthwise convolutions.
        dim: Width of the projection put on the tower; None puts none on. The towers of an open_clip
            model have their own.
        hidden: Width of the projection's hidden layer; 0 makes it linear.
        checkpointing: Whether activations are computed twice rather than kept.
        views: Altered views of each picture that training draws from, passed once through what is
            frozen of the tower; 0 alters a picture anew each time and passes it through all.
        learning_rate: Of what is trained below the projection.
        preprocess: Overrides of the preset's, for pictures.
        test_views: Views of a picture whose rows are averaged when it is measured and after
            training, see :class:`mmalign.encoders.PresetConfig`; by default the preset's.
        max_length: Tokens kept of a text; by default the preset's.

    Raises:
        ConfigError: There is no such mode, or a number is out of its range.
    """

    mode: Mode = "full"
    last_n: int = 2
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    dim: int | None = 256
    hidden: int = 0
    checkpointing: bool = False
    views: int = 0
    learning_rate: float = 1e-4
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    test_views: Literal[1, 2, 4] | None = None
    max_length: int | None = None

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ConfigError(
                "a tower has no such mode", got=self.mode, fix=nearest(self.mode, get_args(Mode))
            )
        for name in ("last_n", "rank", "alpha", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ConfigError(
                    f"{name} of a tower must be positive",
                    got=getattr(self, name),
                    fix="leave it out for the default",
                )
        if not 0 <= self.dropout < 1 or self.hidden < 0 or self.views < 0:
            raise ConfigError(
                "dropout of a tower must be in [0, 1), hidden and views 0 or more",
                got=(self.dropout, self.hidden, self.views),
                fix="leave them out for the defaults",
            )
        if self.dim is not None and self.dim < 1:
            raise ConfigError("dim of a tower must be 1 or more", got=self.dim, fix="or null")
        if self.max_length is not None and self.max_length < 2:
            raise ConfigError("max_length is too short", got=self.max_length, fix="pass >= 2")
        if self.test_views not in (None, 1, 2, 4):
            raise ConfigError("a picture has no such views", got=self.test_views, fix="1, 2 or 4")


@dataclass(frozen=True)
class FinetuneConfig:
    """How encoders learn a catalogue.

    Attributes:
        objectives: Objective to its weight: ``image_text`` pairs of the catalogue's own items;
            ``behaviour``, items that the same users take; ``text_pairs``, two columns of an item;
            ``graph``, held-out interactions predicted by vectors that pass the interaction graph.
        loss: Of ``image_text`` and ``text_pairs``: ``clip`` (softmax) or ``siglip`` (sigmoid).
        text: The text tower.
        image: The image tower.
        batch_size: Items, or pairs, per step and process: each is contrasted with all others.
        chunk_size: Items that pass a tower at a time, by gradient caching; None passes the batch
            as a whole.
        accumulate: Batches per step of the optimizer.
        learning_rate: Of projections, temperature, and modules that are trained whole beside LoRA.
        weight_decay: Of matrices.
        warmup: Share of all steps in which the learning rate rises; then it falls as a cosine.
        max_norm: Of the gradient; it is scaled down to it.
        temperature: At the start, from .01 to 1, or from .001 with ``loss: siglip``; it is learned
            within these bounds. None takes that of the open_clip model that both towers are of, and
            .07 where there is none.
        bias: Of the logits of ``loss: siglip`` at the start; it is learned. None takes that of the
            open_clip model that both towers are of, and -10 where there is none.
        average: Decay per step of the running mean of weights that is validated and written, as
            0.98; 0 takes the weights themselves (Polyak & Juditsky 1992).
        popularity: What an item's popularity takes off its co-interactions, as a power in [0, 1].
        neighbours: Partners that each item has in ``behaviour``.
        start: Of new linear projections for ``image_text``: ``random``, or ``ridge``, where the
            frozen row of the picture predicts that of the text in closed form.
        template: Text of an item, such as ``"{title} by {brand}[, {colour}]"``; by default the
            columns of ``data.text`` one after the other.
        field_dropout: Probability that training leaves out a text column.
        text_pairs: The two columns of the objective ``text_pairs``.
        drift: What keeps towers close to where they started: ``features`` (squared distance to
            frozen rows), ``weights`` (L2-SP: Li et al. 2018, arXiv:1802.01483) or ``similarity``
            (frozen likeness of the items in a batch: Park et al. 2019, arXiv:1904.05068).
        drift_weight: Of that term.
        streaming: Whether items are read in passing, for a catalogue larger than memory.
        workers: Processes that decode and tokenize; 0 does it in between.
        merge: Whether LoRA is merged into the written folders; else they hold the adapters alone.
        test: Whether test is measured as well, once, at the end.

    Raises:
        ConfigError: A name or a number is out of its range, or objectives and towers do not fit.
    """

    objectives: Mapping[str, float] = field(default_factory=lambda: {"image_text": 1.0})
    loss: Literal["clip", "siglip"] = "clip"
    text: TowerConfig = field(default_factory=TowerConfig)
    image: TowerConfig = field(default_factory=TowerConfig)
    batch_size: int = 256
    chunk_size: int | None = None
    accumulate: int = 1
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup: float = 0.1
    max_norm: float = 1.0
    temperature: float | None = None
    bias: float | None = None
    average: float = 0.0
    popularity: float = 0.5
    neighbours: int = 20
    start: Literal["random", "ridge"] = "random"
    template: str | None = None
    field_dropout: float = 0.0
    text_pairs: tuple[str, ...] = ()
    drift: Drift = "none"
    drift_weight: float = 0.0
    streaming: bool = False
    workers: int = 0
    merge: bool = True
    test: bool = False

    def __post_init__(self) -> None:
        self._check_names()
        if self.text.preprocess or self.text.views:
            raise ConfigError(
                "a text tower has neither preprocess nor views",
                got={"preprocess": dict(self.text.preprocess), "views": self.text.views},
                fix="set finetune.image.preprocess and finetune.image.views",
            )
        if self.image.max_length is not None:
            raise ConfigError(
                "an image tower has no max_length",
                got=self.image.max_length,
                fix="set finetune.text.max_length",
            )
        low, high = self.temperature_bounds()
        if self.temperature is not None and not low <= self.temperature <= high:
            raise ConfigError(
                f"finetune.temperature must be in [{low}, {high}] with finetune.loss: {self.loss}",
                got=self.temperature,
                fix="leave it out for the default",
            )
        for name in ("batch_size", "accumulate", "learning_rate", "max_norm", "neighbours"):
            if not getattr(self, name) > 0:
                raise ConfigError(
                    f"finetune.{name} must be positive",
                    got=getattr(self, name),
                    fix="leave it out for the default",
                )
        for name in ("warmup", "popularity"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(
                    f"finetune.{name} must be in [0, 1]",
                    got=getattr(self, name),
                    fix="leave it out for the default",
                )
        for name, usual in (("field_dropout", 0.2), ("average", 0.98)):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(
                    f"finetune.{name} must be in [0, 1)",
                    got=getattr(self, name),
                    fix=f"try {usual}, or 0",
                )
        for name in ("weight_decay", "drift_weight", "workers"):
            if getattr(self, name) < 0:
                raise ConfigError(
                    f"finetune.{name} must not be negative", got=getattr(self, name), fix="0"
                )
        if self.batch_size < 2:
            raise ConfigError(
                "a batch of one has nothing to contrast",
                got=f"finetune.batch_size={self.batch_size}",
                fix="bound memory by finetune.chunk_size instead",
            )
        if self.chunk_size is not None and self.chunk_size < 1:
            raise ConfigError(
                "finetune.chunk_size must be 1 or more", got=self.chunk_size, fix="or null"
            )

    def _check_names(self) -> None:
        for name, weight in self.objectives.items():
            if name not in get_args(Objective):
                raise ConfigError(
                    f"unknown key 'finetune.objectives.{name}'",
                    fix=nearest(name, get_args(Objective)),
                )
            if weight < 0:
                raise ConfigError(
                    f"the weight of finetune objective {name} must not be negative",
                    got=weight,
                    fix="0 leaves it out",
                )
        if not self.active():
            raise ConfigError(
                "finetune has no objective",
                got=dict(self.objectives),
                fix="set finetune.objectives, such as {image_text: 1}",
            )
        if self.loss not in ("clip", "siglip"):
            raise ConfigError(
                "finetune has no such loss",
                got=self.loss,
                fix=nearest(self.loss, ("clip", "siglip")),
            )
        if self.drift not in get_args(Drift):
            raise ConfigError(
                "finetune knows no such drift guard",
                got=self.drift,
                fix=nearest(self.drift, get_args(Drift)),
            )
        if self.drift != "none" and not self.drift_weight:
            raise ConfigError(
                "a drift guard of weight 0 guards nothing",
                got=self.drift,
                fix="set finetune.drift_weight, such as 1, or finetune.drift: none",
            )
        if self.start not in ("random", "ridge"):
            raise ConfigError(
                "finetune has no such start",
                got=self.start,
                fix=nearest(self.start, ("random", "ridge")),
            )
        others = "image_text" not in self.active() or "graph" in self.active()
        if self.start == "ridge" and (others or self.streaming):
            raise ConfigError(
                "finetune.start: ridge needs the objective image_text, and no graph or stream",
                got={"objectives": dict(self.objectives), "streaming": self.streaming},
                fix="set finetune.start: random",
            )
        if "text_pairs" in self.active() and len(self.text_pairs) != 2:
            raise ConfigError(
                "the objective text_pairs needs two columns",
                got=self.text_pairs,
                fix="set finetune.text_pairs: [title, description]",
            )

        if "text_pairs" in self.active() and len(set(self.text_pairs)) < 2:
            raise ConfigError(
                "the objective text_pairs needs two different columns",
                got=self.text_pairs,
                fix="set finetune.text_pairs: [title, description]",
            )

    def active(self) -> dict[str, float]:
        """Objectives of some weight."""
        return {name: weight for name, weight in self.objectives.items() if weight > 0}

    def temperature_bounds(self) -> tuple[float, float]:
        """Within which the temperature is learned; CLIP's own lower bound is of its softmax."""
        return (0.001 if self.loss == "siglip" else 0.01), 1.0

    def uses_behaviour(self) -> bool:
        """Whether any objective reads the interactions."""
        return bool(self.active().keys() & {"behaviour", "graph"})

    def tower(self, modality: str) -> TowerConfig:
        """The config of the tower that reads a modality."""
        return self.text if modality == "text" else self.image
