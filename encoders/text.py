"""Text encoders: a tokenizer and a text model, run in batches of similar length."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stderr
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch

from mmalign.encoders.adapter import merge_adapter
from mmalign.encoders.projection import Projection, read_projection
from mmalign.encoders.runtime import Rows, quiet_transformers, require, run
from mmalign.errors import EncoderError
from mmalign.interfaces import Encoded, Media

if TYPE_CHECKING:
    from mmalign.encoders.clip import ClipText
    from mmalign.encoders.presets import PresetConfig
    from mmalign.encoders.resolve import Source

__all__ = ["TextEncoder", "TextTower", "TransformersText", "load_text_tower", "read_tokens"]

PART = 64
"""Texts that a CPU runs at a time."""


class TextTower(Protocol):
    """A text model with its own tokenizer."""

    @property
    def dim(self) -> int:
        """Length of one output row."""
        ...

    def tokenize(self, texts: list[str]) -> tuple[list[list[int]], int]:
        """Return token ids per text, and how many texts were cut to the model's length."""
        ...

    def embed(self, tokens: list[list[int]]) -> torch.Tensor:
        """Run one batch: ``[B, D]``; a row does not depend on the other rows."""
        ...


class TextEncoder:
    """A frozen text encoder.

    Texts are tokenized together and run from long to short, so that a batch holds little
    padding. ``Encoded.notes`` counts texts that were cut (``truncated``).
    """

    modality = "text"

    def __init__(
        self,
        tower: TextTower,
        *,
        fingerprint: str,
        batch_size: int = 64,
        prefix: str = "",
        suffix: str = "",
        normalize: bool = False,
        projection: Projection | None = None,
    ) -> None:
        self.dim = tower.dim if projection is None else projection.dim
        self.fingerprint = fingerprint
        self.batch_size = batch_size
        self.prefix, self.suffix = prefix, suffix
        self.normalize = normalize
        self._tower = tower
        self._projection = projection

    @classmethod
    def load(
        cls, preset: PresetConfig, source: Source, fingerprint: str, device: torch.device
    ) -> TextEncoder:
        """Load the tower a preset asks for from files that are there."""
        tower = load_text_tower(preset, source, device)
        projection = read_projection(source.projection)
        return cls(
            tower,
            fingerprint=fingerprint,
            batch_size=preset.batch_size,
            prefix=preset.prefix,
            suffix=preset.suffix,
            normalize=preset.normalize,
            projection=None if projection is None else projection.to(device),
        )

    def encode(self, values: Sequence[Media]) -> Encoded:
        """Encode texts; an empty one fails alone.

        Shapes:
            values: ``B`` texts.
            returns: ``[B, D]`` in the same order.
        """
        rows = Rows(len(values), self.dim, normalize=self.normalize)
        read = read_tokens(self._tower, values, self.prefix, self.suffix)
        kept, tokens, rows.problems = read.kept, read.tokens, read.problems
        order = sorted(range(len(tokens)), key=lambda i: -len(tokens[i]))
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            output = self._tower.embed([tokens[i] for i in batch])
            if self._projection is not None:
                output = run(self._projection, output)
            rows.put([kept[i] for i in batch], output)
        return rows.encoded({"truncated": read.truncated} if kept else {})


class ReadTexts(NamedTuple):
    """What is left of some texts.

    Attributes:
        kept: Positions of those that have a token, ascending.
        tokens: Of each of them.
        problems: Position to a one-line reason, for all others.
        truncated: How many were cut to the model's length.
    """

    kept: list[int]
    tokens: list[list[int]]
    problems: dict[int, str]
    truncated: int


def read_tokens(
    tower: TextTower | ClipText, values: Sequence[Media], prefix: str, suffix: str
) -> ReadTexts:
    """Tokenize what can be read, each text between prefix and suffix."""
    texts: list[tuple[int, str]] = []
    problems: dict[int, str] = {}
    for position, value in enumerate(values):
        if not isinstance(value, str):
            problems[position] = f"not a text but {type(value).__name__}"
        elif not value.strip():
            problems[position] = "the text is empty"
        else:
            # Lone surrogates, left by careless decoding, would fail the whole batch.
            clean = value.encode("utf-8", "replace").decode("utf-8")
            texts.append((position, prefix + clean + suffix))
    if not texts:
        return ReadTexts([], [], problems, 0)
    tokens, truncated = tower.tokenize([text for _, text in texts])
    found = list(zip([position for position, _ in texts], tokens, strict=True))
    problems |= {position: "no token is left of the text" for position, ids in found if not ids}
    kept = [(position, ids) for position, ids in found if ids]
    return ReadTexts([p for p, _ in kept], [ids for _, ids in kept], problems, truncated)


def load_text_tower(
    preset: PresetConfig, source: Source, device: torch.device
) -> TransformersText | ClipText:
    """Load the text model of a preset, frozen, with its adapter but without its projection."""
    tower: TransformersText | ClipText
    if preset.library == "open_clip":
        from mmalign.encoders.clip import ClipText

        tower = ClipText(source.folder, device)
    else:
        (weights, *_) = source.weights
        tower = TransformersText(
            str(source.folder),
            device,
            pooling=preset.pooling,
            max_length=preset.max_length,
            layers=preset.layers,
            suffix=preset.suffix,
            gguf_file=weights.name if weights.suffix == ".gguf" else None,
        )
    if source.adapter is not None:
        merge_adapter(tower, source.adapter)
    return tower


class TransformersText(torch.nn.Module):
    """Any ``AutoModel`` that reads text, with its own tokenizer.

    Args:
        folder: Holds the model and its tokenizer.
        device: Where to run.
        pooling: ``mean`` over real tokens, ``cls`` for the first, ``last`` for the last,
            ``pooler`` for the model's own.
        max_length: Tokens kept of a text, special tokens included.
        layers: Blocks that run; None for all.
        suffix: What texts end with; it is kept where a text is cut.
        gguf_file: The file in the folder that holds model and tokenizer, where it is of that kind.

    Raises:
        EncoderError: The model has fewer blocks, the tokenizer cannot pad, or the suffix leaves no
            room for a text.
        MissingDependencyError: gguf is needed and not installed.
    """

    def __init__(
        self,
        folder: str,
        device: torch.device,
        *,
        pooling: str = "mean",
        max_length: int = 512,
        layers: int | None = None,
        suffix: str = "",
        gguf_file: str | None = None,
    ) -> None:
        super().__init__()
        transformers = require("transformers", "transformers")
        given: dict[str, Any] = {"local_files_only": True}
        if gguf_file is not None:
            require("gguf", "gguf")
            given["gguf_file"] = gguf_file
        with quiet_transformers(hide_warnings=layers is not None):
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **given)
            if layers is not None:
                config = transformers.AutoConfig.from_pretrained(folder, **given)
                if layers > config.num_hidden_layers:
                    raise EncoderError(
                        f"the model in {folder} has {config.num_hidden_layers} layers",
                        got=layers,
                        fix="ask for no more",
                    )
                given["num_hidden_layers"] = layers
            # The bar of a GGUF file cannot be switched off.
            with redirect_stderr(io.StringIO()) if gguf_file is not None else nullcontext():
                self._model = transformers.AutoModel.from_pretrained(
                    folder, weights_only=True, dtype=torch.float32, **given
                )
        _make_saveable(self._model)
        if pooling == "last":
            self._tokenizer.padding_side = "right"
            self._tokenizer.pad_token = self._tokenizer.pad_token or self._tokenizer.eos_token
        if self._tokenizer.pad_token_id is None:
            raise EncoderError(
                "the tokenizer has no token to pad with",
                got=folder,
                fix="add pad_token to its tokenizer_config.json",
            )
        self._model = self._model.to(device).eval().requires_grad_(False)
        self._device = device
        self._pooling = pooling
        positions = _num_positions(self._model) or max_length
        self._max_length = min(max_length, self._tokenizer.model_max_length, positions)
        self._ending = self._tokens(suffix, special=False) if suffix else []
        self._closing = 0  # tokens that the tokenizer itself puts after every text
        if suffix:
            plain, closed = self._tokens("a", special=False), self._tokens("a", special=True)
            if plain and plain[0] in closed:
                self._closing = len(closed) - len(plain) - closed.index(plain[0])
        if len(self._ending) + self._closing >= self._max_length:
            raise EncoderError(
                f"the suffix leaves no room for a text in {self._max_length} tokens",
                got=suffix,
                fix="raise max_length",
            )
        self.dim = int(self._model.config.hidden_size)

    @property
    def core(self) -> torch.nn.Module:
        """The model of the library."""
        model: torch.nn.Module = self._model
        return model

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the library."""
        return self._tokenizer

    @property
    def max_length(self) -> int:
        """Tokens kept of a text: what was asked for, or less where the model has less."""
        return int(self._max_length)

    def tokenize(self, texts: list[str]) -> tuple[list[list[int]], int]:
        """Cut to ``max_length``, suffix kept; only texts that fill it are counted again whole."""
        tokens = self._tokenizer(texts, truncation=True, max_length=self._max_length)["input_ids"]
        full = [t for t, ids in zip(texts, tokens, strict=True) if len(ids) >= self._max_length]
        if not full:
            return tokens, 0
        lengths = self._tokenizer(full, truncation=False, verbose=False)["input_ids"]
        cut = {t for t, ids in zip(full, lengths, strict=True) if len(ids) > self._max_length}
        if self._ending:
            for text, ids in zip(texts, tokens, strict=True):
                if text in cut:
                    end = len(ids) - self._closing
                    ids[end - len(self._ending) : end] = self._ending
        return tokens, sum(text in cut for text in full)

    def _tokens(self, text: str, *, special: bool) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=special)["input_ids"])

    def pad(self, tokens: list[list[int]]) -> dict[str, torch.Tensor]:
        """Pad to the longest row: what ``forward`` takes, on the CPU."""
        return dict(self._tokenizer.pad({"input_ids": tokens}, return_tensors="pt"))

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Run, and pool over what is not padding: ``[B, T]`` tensors to ``[B, D]``.

        A CPU takes parts of like length one after the other, since it pays for padding.
        """
        mask = inputs["attention_mask"]
        if mask.device.type != "cpu" or len(mask) <= PART:
            return self._pool(self._model(**inputs), mask)
        lengths = mask.sum(dim=1)
        order = torch.argsort(lengths)
        parts = []
        for rows in torch.split(order, PART):
            padded_right = bool((mask[rows, 0] == 1).all())
            width = int(lengths[rows].max()) if padded_right else mask.shape[1]
            part = {name: values[rows, :width] for name, values in inputs.items()}
            parts.append(self._pool(self._model(**part), part["attention_mask"]))
        return torch.cat(parts)[torch.argsort(order)]

    def embed(self, tokens: list[list[int]]) -> torch.Tensor:
        """Run one batch without gradients."""
        batch = {name: rows.to(self._device) for name, rows in self.pad(tokens).items()}
        output: torch.Tensor = run(self, batch)
        return output

    def _pool(self, output: Any, mask: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = output.last_hidden_state
        if self._pooling == "pooler":
            pooled: torch.Tensor = output.pooler_output
            return pooled
        if self._pooling == "cls":
            return hidden[torch.arange(len(hidden), device=hidden.device), mask.argmax(dim=1)]
        if self._pooling == "last":
            last = mask.shape[1] - 1 - mask.flip(1).argmax(dim=1)
            return hidden[torch.arange(len(hidden), device=hidden.device), last]
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weights).sum(dim=1) / weights.sum(dim=1)


def _num_positions(model: Any) -> int | None:
    """Tokens that a model has positions for: RoBERTa and its kin begin to count after padding."""
    most: int | None = getattr(model.config, "max_position_embeddings", None)
    for name, module in model.named_modules():
        if most and name.endswith("position_embeddings"):
            padding = getattr(module, "padding_idx", None)
            return most if padding is None else most - padding - 1
    return most


def _make_saveable(model: Any) -> None:
    """Let a model that was cut, or read from a quantised file, be written like any other."""
    for mark in ("hf_quantizer", "quantization_method", "is_quantized"):
        vars(model).pop(mark, None)  # its weights are plain numbers by now
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    kinds = getattr(model.config, "layer_types", None)
    if kinds:
        model.config.layer_types = kinds[: model.config.num_hidden_layers]
