"""The artefact's folder: written whole, read without running anything in it.

==========================  =====================================================================
file                        content
==========================  =====================================================================
``config.json``             format version, experiment, calibration, encoder fingerprints,
                            attribute encoder, measured table, library versions, digests
``model.safetensors``       all that the model learned
``features.safetensors``    content of the items
``seen.safetensors``        train and valid interactions
``items.parquet``           item ids in row order and the columns carried along
``users.parquet``           user ids in row order
``README.md``               model card
==========================  =====================================================================
"""

from __future__ import annotations

import copy
import json
import math
import tempfile
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from mmalign.atomic import recover, whole_folder
from mmalign.config import from_dict, to_dict
from mmalign.errors import ArtefactError, in_one_line
from mmalign.experiment import ExperimentConfig
from mmalign.interfaces import ITEM_ID, USER_ID, Feature
from mmalign.models import build_model
from mmalign.models.base import check_features
from mmalign.models.calibration import Calibration
from mmalign.recommender import files, model_card

if TYPE_CHECKING:
    from mmalign.recommender import Recommender

__all__ = ["FILES", "FORMAT", "load", "push", "save"]

FORMAT = 3
FILES = (
    "config.json",
    "model.safetensors",
    "features.safetensors",
    "seen.safetensors",
    "items.parquet",
    "users.parquet",
    "README.md",
)
LIBRARIES = ("mmalign", "torch", "torch-geometric", "numpy", "scipy", "scikit-learn")


def save(recommender: Recommender, path: Path) -> None:
    """Write all files of an artefact; the folder changes as a whole or stays as it was.

    Raises:
        DataError: The folder cannot be written, or holds other files than those of an artefact.
    """
    with whole_folder(path, FILES) as folder:
        _write(recommender, folder)


def load(
    path: str | Path, *, revision: str | None = None, token: str | None = None
) -> dict[str, Any]:
    """Read the arguments of :class:`mmalign.recommender.Recommender` from a folder or the hub.

    Args:
        path: A folder, or a repository id.
        revision: Branch, tag or commit on the hub.
        token: For a private repository; by default that of ``hf auth login``.

    Raises:
        ArtefactError: The folder is not there, incomplete, damaged, of another format version,
            or holds a file that could run code; or the hub does not give it.
    """
    recover(Path(path))
    folder = Path(path) if Path(path).is_dir() else _download(str(path), revision, token)
    stored = files.read_json(folder / "config.json")
    if stored.get("format") != FORMAT:
        raise ArtefactError(
            "this artefact has another format version",
            got=stored.get("format"),
            fix=f"this mmalign reads version {FORMAT}: install the one that wrote it, or fit anew",
        )
    files.refuse_code(folder, FILES)
    items = files.read_table(folder / "items.parquet", ITEM_ID)
    users = files.read_table(folder / "users.parquet", USER_ID)
    learned, content, seen = (
        files.read_arrays(folder / f"{name}.safetensors") for name in ("model", "features", "seen")
    )
    try:
        found = _digests(items[ITEM_ID], users[USER_ID], seen)
        _check_digests(found, stored.get("digests", {}), folder)
        config = from_dict(ExperimentConfig, stored["experiment"])
        loaded = {
            "model": build_model(config.model, seed=config.seed).load_arrays(learned),
            "calibration": from_dict(Calibration, stored["calibration"]),
            "config": config,
            "items": items,
            "user_ids": users[USER_ID].tolist(),
            "seen": files.unpack(seen),
            "features": _features(content),
            "encoders": dict(stored["encoders"]),
            "attributes": dict(stored["attributes"]),
            "measured": {
                name: {key: math.nan if value is None else value for key, value in row.items()}
                for name, row in stored["measured"].items()
            },
        }
        _try(loaded)
    except ArtefactError:
        raise
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ArtefactError(
            f"{folder} does not fit together",
            got=f"{type(error).__name__}: {error}",
            fix="fit anew",
        ) from error
    return loaded


def push(recommender: Recommender, repo_id: str, *, private: bool, token: str | None) -> str:
    """Upload an artefact; paths of this machine are left out of it.

    Raises:
        ArtefactError: The hub cannot be reached, or refuses.
    """
    from huggingface_hub import HfApi

    if not private:
        warnings.warn(
            f"the ids and histories of {len(recommender.user_ids):,} users become public: "
            "pass private=True to keep them",
            stacklevel=3,
        )
    public = copy.copy(recommender)
    public.config = _without_local_paths(recommender.config)
    api = HfApi(token=token)
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            _write(public, Path(folder))
            commit = api.upload_folder(
                repo_id=repo_id, folder_path=folder, commit_message="Upload mmalign recommender"
            )
    except Exception as error:  # the hub's client has changed its errors twice
        raise ArtefactError(
            f"cannot upload to {repo_id!r}",
            got=str(error),
            fix="check the name, the network, and the token (hf auth login)",
        ) from error
    return str(commit.commit_url)


def _write(recommender: Recommender, folder: Path) -> None:
    seen = files.pack(recommender.seen)
    config = {
        "format": FORMAT,
        "experiment": to_dict(recommender.config),
        "calibration": to_dict(recommender.calibration),
        "encoders": recommender.encoders,
        "attributes": recommender.attributes,
        "measured": {
            name: {key: None if math.isnan(value) else value for key, value in row.items()}
            for name, row in recommender.measured.items()
        },
        "versions": _versions(),
        "digests": _digests(recommender.item_ids, recommender.user_ids, seen),
    }
    text = json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    files.write_arrays(folder / "model.safetensors", recommender.model.arrays())
    content = {
        f"{name}.{part}": getattr(feature, part)
        for name, feature in recommender.features.items()
        for part in ("values", "present")
    }
    files.write_arrays(folder / "features.safetensors", content)
    files.write_arrays(folder / "seen.safetensors", seen)
    files.write_table(folder / "items.parquet", recommender.items)
    users = pd.DataFrame({USER_ID: pd.Series(recommender.user_ids, dtype="str")})
    files.write_table(folder / "users.parquet", users)
    (folder / "README.md").write_text(model_card.render(recommender), encoding="utf-8")


def _digests(
    item_ids: Iterable[str], user_ids: Iterable[str], seen: Mapping[str, NDArray[Any]]
) -> dict[str, str]:
    """SHA-256 of the ids in their order, and of who took what: what other files count on."""
    parts: dict[str, list[bytes]] = {
        "items": ["\0".join(item_ids).encode("utf-8", "surrogatepass")],
        "users": ["\0".join(user_ids).encode("utf-8", "surrogatepass")],
        "seen": [part for name in sorted(seen) for part in (name.encode(), seen[name].tobytes())],
    }
    return {name: sha256(b"".join(part)).hexdigest() for name, part in parts.items()}


def _check_digests(found: Mapping[str, str], written: Mapping[str, str], folder: Path) -> None:
    for name, digest in found.items():
        if written.get(name, digest) != digest:
            raise ArtefactError(
                f"{name} of {folder} are not what was written: in another order, or others",
                got=f"digest {digest[:12]}",
                fix="fit anew, or change a loaded recommender and call save_pretrained",
            )


def _features(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Feature]:
    names = {key.rpartition(".")[0] for key in arrays}
    return {n: Feature(arrays[f"{n}.values"], arrays[f"{n}.present"]) for n in sorted(names)}


def _try(loaded: Mapping[str, Any]) -> None:
    """Let sizes that differ show now, not with the first user who asks.

    Raises:
        ValueError: Something has another number of items or users than the rest.
    """
    num_items, num_users = len(loaded["items"]), len(loaded["user_ids"])
    shapes = {split: matrix.shape for split, matrix in loaded["seen"].items()}
    if shapes["train"] != (num_users, num_items) or len(set(shapes.values())) > 1:
        raise ValueError(f"{num_users} users and {num_items} items, but seen is {shapes}")
    if loaded["model"].warm.shape != (num_items,):
        raise ValueError(f"{num_items} items, but the model has {loaded['model'].warm.shape}")
    check_features(loaded["features"], num_items)
    nobody = sp.csr_matrix((1, num_items), dtype=np.float32)
    loaded["model"].score(nobody, np.arange(num_items))


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _without_local_paths(config: ExperimentConfig) -> ExperimentConfig:
    data = config.data
    trainer = {k: _last_part(v) if isinstance(v, str) else v for k, v in config.trainer.items()}
    return replace(
        config,
        data=replace(
            data,
            path=_last_part(data.path),
            items=data.items and _last_part(data.items),
            interactions=data.interactions and _last_part(data.interactions),
            users=data.users and _last_part(data.users),
            neighbours={name: _last_part(file) for name, file in data.neighbours.items()},
        ),
        encoders={modality: _last_part(name) for modality, name in config.encoders.items()},
        cache=ExperimentConfig.cache,
        trainer=trainer,
    )


def _last_part(text: str) -> str:
    """Shorten a path of this machine; a preset, or an id on the hub, stays."""
    path = Path(text)
    local = path.is_absolute() or text.startswith((".", "~"))
    return path.name if local else text


def _download(repo_id: str, revision: str | None, token: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    wanted = ["*.json", "*.safetensors", "*.parquet", "*.md"]
    nowhere = "no artefact there, neither as a folder nor on the Hugging Face hub"
    try:
        found = snapshot_download(repo_id, revision=revision, token=token, allow_patterns=wanted)
    except HFValidationError:
        what, fix = nowhere, "check the path, or make one with mmalign fit --output"
    except RepositoryNotFoundError:
        what, fix = nowhere, "check the path; of a private repository, give its token"
    except RevisionNotFoundError:
        what, fix = f"no revision {revision!r} of that repository", "name a branch, tag or commit"
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        what = f"{nowhere}, which cannot be asked ({in_one_line(error)})"
        fix = "check the path; if it is on the hub, try again with a connection"
    else:
        return Path(found)
    raise ArtefactError(what, got=repo_id, fix=fix)
