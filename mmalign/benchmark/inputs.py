"""What every child process reads: the catalogue, by its config, and the features, from one file."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import safe_open
from safetensors.numpy import save_file

from mmalign.data.catalog import Catalog
from mmalign.interfaces import ITEM_ID, SPLIT, TIMESTAMP, USER_ID, WEIGHT, Feature, Features

__all__ = ["digest", "read_features", "write_features"]


def digest(catalog: Catalog, features: Features) -> str:
    """Hex digest of all that a model and its measurement see of the data."""
    total = sha256()
    total.update(_hashes(catalog.items[[ITEM_ID]]))
    seen = [c for c in (USER_ID, ITEM_ID, WEIGHT, SPLIT, TIMESTAMP) if c in catalog.interactions]
    total.update(_hashes(catalog.interactions[seen]))
    for name, feature in sorted(features.items()):
        total.update(f"{name} {feature.values.shape}".encode())
        total.update(feature.values.tobytes())
        total.update(feature.present.tobytes())
    return total.hexdigest()


def write_features(features: Features, path: Path) -> None:
    """Write features so that a process may read only the modalities of its model."""
    arrays = {}
    for name, feature in features.items():
        arrays[f"values.{name}"] = np.ascontiguousarray(feature.values)
        arrays[f"present.{name}"] = np.ascontiguousarray(feature.present)
    save_file(arrays, path)


def read_features(path: Path, modalities: Iterable[str]) -> dict[str, Feature]:
    """Read the named modalities."""
    with safe_open(path, framework="numpy") as file:
        return {
            name: Feature(
                file.get_tensor(f"values.{name}"), file.get_tensor(f"present.{name}").astype(bool)
            )
            for name in modalities
        }


def _hashes(frame: pd.DataFrame) -> bytes:
    return bytes(pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes())
