"""What all encoders share: device, fingerprint, and turning model output into feature rows."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmalign.encoders.folders import read_json
from mmalign.errors import EncoderError, MissingDependencyError, MMAlignError, in_one_line, nearest
from mmalign.interfaces import Encoded, FloatArray

if TYPE_CHECKING:
    import torch

    from mmalign.encoders.resolve import Source

__all__ = ["CODE_VERSION", "Rows", "file_sha256", "fingerprint", "pick_device", "read_weights"]

CODE_VERSION = 1
"""Raise it when the code changes what an encoder computes: cached features are made anew."""

_DECISIVE_FILES = (
    "config.json",
    "open_clip_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
)


def pick_device(device: str) -> torch.device:
    """Turn a device name into a torch device; ``auto`` takes the first of cuda, mps, cpu.

    Raises:
        EncoderError: torch knows no such device, or it is not there.
    """
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            device = "cuda"
        else:
            device = "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise EncoderError(
            "this device cannot be used", got=device, fix="pass auto, cpu, cuda or mps"
        ) from error
    return chosen


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, remembered for as long as the file is unchanged."""
    status = path.stat()
    return _file_sha256(str(path), status.st_size, status.st_mtime_ns)


def fingerprint(source: Source, behaviour: Mapping[str, Any]) -> str:
    """Digest of all that decides an encoder's output.

    Weights and decisive side files count by content, so that the same model has the same
    fingerprint wherever its files lie. Library versions do not count: they move results by
    rounding only, and no one wants to encode a catalogue anew after every upgrade.
    """
    digest = hashlib.sha256(f"mmalign encoder {CODE_VERSION}\n".encode())
    digest.update(json.dumps(behaviour, sort_keys=True).encode())
    for path in source.weights:
        digest.update(f"\nweights {file_sha256(path)}".encode())
    for name in _DECISIVE_FILES:
        if (source.folder / name).is_file():
            digest.update(f"\n{name} {_side_file_sha256(source.folder / name)}".encode())
    for path in source.additions:
        digest.update(f"\n{path.parent.name}/{path.name} {file_sha256(path)}".encode())
    return digest.hexdigest()


def _side_file_sha256(path: Path) -> str:
    """Digest of a side file, but for the place of its folder, which tuned towers tell open_clip."""
    if path.name != "open_clip_config.json" or not path.with_name("config.json").is_file():
        return file_sha256(path)
    told = read_json(path)
    told.get("model_cfg", {}).get("text_cfg", {}).pop("hf_model_name", None)
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


class Rows:
    """Collects the rows of a call, however they were batched, and the items that failed."""

    def __init__(self, length: int, dim: int, *, normalize: bool) -> None:
        self._values = np.zeros((length, dim), np.float32)
        self._present = np.zeros(length, np.bool_)
        self._normalize = normalize
        self.problems: dict[int, str] = {}

    def put(self, positions: list[int], output: torch.Tensor) -> None:
        """Store model output ``[B, D]`` at these positions of the call."""
        values: FloatArray = output.detach().float().cpu().numpy()
        finite = np.asarray(np.isfinite(values).all(axis=1))
        if self._normalize:
            norms = np.linalg.norm(values, axis=1, keepdims=True)
            values = values / np.maximum(norms, np.finfo(np.float32).tiny)
        for row, position in enumerate(positions):
            if finite[row]:
                self._values[position], self._present[position] = values[row], True
            else:
                self.problems[position] = "the model gave numbers that are not finite"

    def encoded(self, notes: dict[str, int] | None = None) -> Encoded:
        """What the call returns."""
        counts = {name: count for name, count in (notes or {}).items() if count}
        return Encoded(self._values, self._present, dict(sorted(self.problems.items())), counts)


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read tensors by name, from safetensors or from a file that torch reads without pickle."""
    import torch

    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    weights: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return weights


def run(tower: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
    """One forward pass without gradients.

    Raises:
        EncoderError: The device ran out of memory.
    """
    import torch

    try:
        with torch.inference_mode():
            return tower(*inputs, **named)
    except torch.OutOfMemoryError as error:
        raise EncoderError("out of device memory while encoding", fix="lower batch_size") from error


def require(module: str, requirement: str) -> Any:
    """Import an optional library.

    Raises:
        MissingDependencyError: It is not installed; the message names the ``pip install``.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"this encoder needs {module}", got=str(error), fix=f"pip install {requirement}"
        ) from error


def check_known(overrides: Iterable[str], known: Iterable[str]) -> None:
    """Check names of preprocessing settings against those a library has.

    Raises:
        EncoderError: It has none of that name; the nearest is given.
    """
    known = list(known)
    for name in overrides:
        if name not in known:
            raise EncoderError(
                "preprocess has a setting that the encoder's library does not know",
                got=name,
                fix=nearest(name, known),
            )


@contextmanager
def preprocessing(overrides: Mapping[str, Any]) -> Iterator[None]:
    """Blame what a library fails on inside on the settings that it was given.

    Raises:
        EncoderError: Something else than one of our own errors was raised, and there are overrides.
    """
    try:
        yield
    except MMAlignError:
        raise
    except Exception as error:
        if not overrides:
            raise
        raise EncoderError(
            f"preprocess has a value that the encoder's library cannot take: {dict(overrides)}",
            got=in_one_line(error),
            fix="mend preprocess, or leave it out",
        ) from error


@contextmanager
def quiet_transformers(*, hide_warnings: bool = False) -> Iterator[None]:
    """Keep transformers from drawing its own progress bars while a model loads.

    Args:
        hide_warnings: Whether its warnings are hidden too, such as of weights left out on purpose.
    """
    logging = require("transformers.utils.logging", "transformers")

    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    if hide_warnings:
        logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()


def cpu_count() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@lru_cache(maxsize=256)
def _file_sha256(path: str, size: int, modified: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
