"""The artefact's folder: written whole, read without running anything in it.

==========================  =====================================================================
file                        content
==========================  =====================================================================
``config.json``             format version, experiment, calibration, encoder fingerprints,
                            attribute encoder, measured table, library versions
``model.safetensors``       all that the model learned
``features.safetensors``    content of the items
``seen.safetensors``        train and valid interactions
``items.parquet``           item ids in row order and the columns carried along
``users.parquet``           user ids in row order
``README.md``               model card
==========================  =====================================================================
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from mmalign.atomic import recover, whole_folder
from mmalign.config import from_dict, to_dict
from mmalign.errors import ArtefactError, ConfigError
from mmalign.experiment import ExperimentConfig
from mmalign.interfaces import USER_ID, Feature
from mmalign.models import build_model
from mmalign.models.calibration import Calibration
from mmalign.recommender import model_card

if TYPE_CHECKING:
    from mmalign.recommender import Recommender

__all__ = ["FORMAT", "load", "push", "save"]

FORMAT = 1
PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt", ".joblib", ".npy", ".npz")
LIBRARIES = ("mmalign", "torch", "torch-geometric", "numpy", "scipy", "scikit-learn")


def save(recommender: Recommender, path: Path) -> None:
    """Write all files of an artefact; the folder changes as a whole or stays as it was.

    Raises:
        DataError: The folder cannot be written.
    """
    with whole_folder(path) as folder:
        _write(recommender, folder)


def load(path: str | Path) -> dict[str, Any]:
    """Read the arguments of :class:`mmalign.recommender.Recommender` from a folder or the hub.

    Raises:
        ArtefactError: The folder is not there, incomplete, damaged, of another format version,
            or holds a file that could run code.
    """
    folder = Path(path)
    recover(folder)
    if not folder.is_dir():
        folder = _download(str(path))
    _refuse_pickles(folder)
    stored = _read_json(folder / "config.json")
    if stored.get("format") != FORMAT:
        raise ArtefactError(
            "this artefact has another format version",
            got=stored.get("format"),
            fix=f"this mmalign reads version {FORMAT}: install the one that wrote it, or fit anew",
        )
    try:
        config = from_dict(ExperimentConfig, stored["experiment"])
        calibration = from_dict(Calibration, stored["calibration"])
        encoders, attributes = dict(stored["encoders"]), dict(stored["attributes"])
    except (KeyError, TypeError, ConfigError) as error:
        raise ArtefactError(
            f"{folder / 'config.json'} is damaged", got=str(error), fix="fit anew"
        ) from None
    items = _read_parquet(folder / "items.parquet")
    users = _read_parquet(folder / "users.parquet")
    try:
        model = build_model(config.model).load_arrays(_read_arrays(folder / "model.safetensors"))
        seen = _read_arrays(folder / "seen.safetensors")
        matrices = {split: _unpack(split, seen) for split in ("train", "valid")}
    except (KeyError, RuntimeError) as error:
        raise ArtefactError(
            f"{folder} does not fit together", got=str(error), fix="fit anew"
        ) from None
    if not len(items) == len(model.warm) == matrices["train"].shape[1]:
        raise ArtefactError(
            f"{folder} does not fit together",
            got=(len(items), len(model.warm), matrices["train"].shape),
            fix="fit anew",
        )
    return {
        "model": model,
        "calibration": calibration,
        "config": config,
        "items": items,
        "user_ids": users[USER_ID].tolist(),
        "seen": matrices,
        "features": _read_features(folder / "features.safetensors"),
        "encoders": encoders,
        "attributes": attributes,
        "measured": stored.get("measured"),
    }


def push(recommender: Recommender, repo_id: str, *, private: bool, token: str | None) -> str:
    """Upload an artefact; the path of the data on this machine is left out of it."""
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    api.create_repo(repo_id, private=private, exist_ok=True)
    local = recommender.config
    with tempfile.TemporaryDirectory() as folder:
        data = replace(local.data, path=Path(local.data.path).name)
        recommender.config = replace(local, data=data)
        try:
            _write(recommender, Path(folder))
        finally:
            recommender.config = local
        commit = api.upload_folder(
            repo_id=repo_id, folder_path=folder, commit_message="Upload mmalign recommender"
        )
    return str(commit.commit_url)


def _write(recommender: Recommender, folder: Path) -> None:
    config = {
        "format": FORMAT,
        "experiment": to_dict(recommender.config),
        "calibration": to_dict(recommender.calibration),
        "encoders": recommender.encoders,
        "attributes": recommender.attributes,
        "measured": recommender.measured,
        "versions": _versions(),
    }
    text = json.dumps(config, indent=2, ensure_ascii=False)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    _write_arrays(folder / "model.safetensors", recommender.model.arrays())
    _write_arrays(
        folder / "features.safetensors",
        {f"{n}.values": x.values for n, x in recommender.features.items()}
        | {f"{n}.present": x.present for n, x in recommender.features.items()},
    )
    packed = [_pack(split, matrix) for split, matrix in recommender.seen.items()]
    _write_arrays(folder / "seen.safetensors", {k: v for part in packed for k, v in part.items()})
    _display(recommender.items).to_parquet(folder / "items.parquet")
    pd.DataFrame({USER_ID: recommender.user_ids.astype(str)}).to_parquet(folder / "users.parquet")
    (folder / "README.md").write_text(model_card.render(recommender), encoding="utf-8")


def _display(items: pd.DataFrame) -> pd.DataFrame:
    """Leave out columns of raw bytes, such as embedded pictures: they are data, not display."""
    raw = [c for c in items if items[c].map(lambda cell: isinstance(cell, (bytes, dict))).any()]
    return items.drop(columns=raw)


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _download(repo_id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                repo_id, allow_patterns=["*.json", "*.safetensors", "*.parquet", "*.md"]
            )
        )
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError):
        raise ArtefactError(
            "no artefact there, neither as a folder nor on the Hugging Face hub",
            got=repo_id,
            fix="check the path, or make one with mmalign fit --output",
        ) from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _missing(path) from None
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{path} is damaged", got=str(error), fix="fit anew") from None
    if not isinstance(values, dict):
        raise ArtefactError(f"{path} holds no JSON object", fix="fit anew")
    return values


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    if not path.is_file():
        raise _missing(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ArtefactError(f"{path} is damaged", got=str(error), fix="fit anew") from None


def _read_parquet(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise _missing(path)
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's errors derive from these
        raise ArtefactError(f"{path} is damaged", got=str(error), fix="fit anew") from None


def _read_features(path: Path) -> dict[str, Feature]:
    arrays = _read_arrays(path)
    names = [key.removesuffix(".values") for key in arrays if key.endswith(".values")]
    return {n: Feature(arrays[f"{n}.values"], arrays[f"{n}.present"]) for n in names}


def _write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)


def _pack(name: str, matrix: sp.csr_matrix) -> dict[str, NDArray[Any]]:
    return {
        f"{name}.data": matrix.data,
        f"{name}.indices": matrix.indices,
        f"{name}.indptr": matrix.indptr,
        f"{name}.shape": np.array(matrix.shape, np.int64),
    }


def _unpack(name: str, arrays: Mapping[str, NDArray[Any]]) -> sp.csr_matrix:
    parts = tuple(arrays[f"{name}.{part}"] for part in ("data", "indices", "indptr"))
    return sp.csr_matrix(parts, shape=tuple(arrays[f"{name}.shape"].tolist()))


def _refuse_pickles(folder: Path) -> None:
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() in PICKLES:
            raise ArtefactError(
                "an artefact must not hold files that can run code when loaded",
                got=str(file.relative_to(folder)),
                fix="remove the file if you put it there, or do not trust this artefact",
            )


def _missing(path: Path) -> ArtefactError:
    return ArtefactError(
        f"{path.name} is missing", got=str(path.parent), fix="this is no whole artefact: fit anew"
    )
