"""What every child process reads: the catalogue, by its config, and the features, from one file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import safe_open
from safetensors.numpy import save_file

from mmalign.data.catalog import Catalog
from mmalign.interfaces import ITEM_ID, SPLIT, TIMESTAMP, USER_ID, WEIGHT, Feature, Features

__all__ = ["Digest", "read_features", "write_features"]


@dataclass(frozen=True)
class Digest:
    """Hex digests of all that a model and its measurement see of the data.

    Each modality has its own, so that a run stays valid when other models come to be compared,
    with modalities that it does not read.

    Attributes:
        log: Of the ids of items and users, the interactions and the given neighbour lists.
        features: Modality to the digest of its rows.
    """

    log: str = ""
    features: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, catalog: Catalog, features: Features) -> Digest:
        """Digest a catalogue and its features."""
        known = catalog.interactions
        seen = [c for c in (USER_ID, ITEM_ID, WEIGHT, SPLIT, TIMESTAMP) if c in known]
        log = sha256(_hashes(catalog.items[[ITEM_ID]]) + _hashes(known[seen]))
        log.update(_hashes(pd.DataFrame({USER_ID: catalog.user_ids})))  # runs hold users' rows
        for name, graph in sorted(catalog.neighbours.items()):
            log.update(name.encode())
            for part in (graph.indptr, graph.indices, graph.data):
                log.update(np.ascontiguousarray(part).tobytes())
        return cls(log.hexdigest(), {name: _rows(x) for name, x in features.items()})

    def read_by(self, modalities: Iterable[str]) -> list[str]:
        """The digests of the log and of these modalities."""
        return [self.log, *(self.features[name] for name in modalities)]


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


def _rows(feature: Feature) -> str:
    values = feature.values
    parts = (str(values.shape).encode(), values.tobytes(), feature.present.tobytes())
    return sha256(b"".join(parts)).hexdigest()


def _hashes(frame: pd.DataFrame) -> bytes:
    return bytes(pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes())
