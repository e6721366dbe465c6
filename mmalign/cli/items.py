"""``mmalign add-items``, ``mmalign audience`` and ``mmalign explain``."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd

from mmalign.atomic import check_writable
from mmalign.cli.setup import (
    add_config_option,
    config_over,
    encode,
    load_encoders,
    print_lines,
    refuse_overrides,
)
from mmalign.cli.tables import check_output, print_json, read_ids, write_table
from mmalign.data.catalog import Catalog
from mmalign.data.reading import read_table
from mmalign.errors import DataError, EncoderError
from mmalign.experiment import ExperimentConfig
from mmalign.interfaces import ITEM_ID, Encoder
from mmalign.recommender import Explanation, Recommender
from mmalign.recommender.additions import new_items
from mmalign.recommender.artefact import FILES

__all__ = ["COMMANDS", "add_items"]

Run = Callable[[argparse.Namespace], int]


def add_command(parser: argparse.ArgumentParser) -> Run:
    """Take new items into an artefact."""
    add_config_option(
        parser,
        "mmalign add-items ART new_items.parquet --output ART2\n\n"
        "paths of pictures start from the folder of the file, or where none is there from that of "
        "the fitted data; --data.path DIR names another",
    )
    parser.add_argument("artefact", metavar="ART", help="folder, or repository id on the hub")
    parser.add_argument("items", metavar="ITEMS", help=".parquet, .csv or .jsonl, as items of fit")
    parser.add_argument(
        "--output", required=True, metavar="ART2", help="folder of the new artefact"
    )

    def run(options: argparse.Namespace) -> int:
        file = Path(options.items)
        if not file.is_file():
            raise DataError("no such file", got=str(file), fix="name a file of items")
        check_writable(Path(options.output), FILES)
        recommender = Recommender.from_pretrained(options.artefact)
        config = config_over(recommender.config, options, "data", "encoders", "cache")
        is_given = "path" in options.overrides.get("data", {})
        folders = (config.data.path,) if is_given else (file.parent, config.data.path)
        if is_given and not Path(config.data.path).is_dir():
            raise DataError("data.path is no folder", got=config.data.path, fix="check the path")
        table = read_table(file, config.data.text_columns())
        added = add_items(recommender, table, config, [Path(folder) for folder in folders])
        recommender.save_pretrained(options.output)
        print(f"added {added:,} items, saved {options.output}", file=sys.stderr)
        return 0

    return run


def add_items(
    recommender: Recommender,
    items: pd.DataFrame,
    config: ExperimentConfig,
    folders: Sequence[Path],
    *,
    progress: bool = True,
) -> int:
    """Encode new items and append them, see :func:`mmalign.add_items`.

    Args:
        recommender: Grows in place.
        items: With the columns that the model was fitted on.
        config: Names the columns, the encoders and the cache.
        folders: Paths of pictures start from the first of these that holds any of them.
        progress: Whether to show bars and notes on standard error.
    """
    from mmalign.encoders import AttributeEncoder

    if not recommender.model.serves_cold:
        raise DataError(
            f"model {config.model.name!r} cannot place new items",
            fix="fit one that reads content, such as aligned or kernel_ridge",
        )
    catalog = Catalog.from_pandas(items, None, config=config.data)
    new_items(catalog.items, recommender.item_ids)  # refused before hours of encoding
    if progress:
        print_lines(f"note: {notice}" for notice in catalog.notices)
    catalog = _with_pictures(catalog, folders)
    if progress and catalog.root != folders[0]:
        print_lines([f"note: pictures are those in {catalog.root}"])
    attributes = None
    if recommender.attributes:
        attributes = _Fitted(AttributeEncoder.from_dict(recommender.attributes))
    encoders = _fitted_encoders(recommender, config)
    features, _ = encode(config, catalog, encoders, attributes, quiet=not progress)
    recommender.add_items(catalog.items, features)
    return catalog.num_items


def _with_pictures(catalog: Catalog, folders: Sequence[Path]) -> Catalog:
    """Look for the pictures: one that is lost is reported later, all of them hint at a mistake."""
    for folder in folders:
        found = replace(catalog, root=folder)
        named = [image for image in found.images() if image is not None]
        if not named or any(isinstance(image, bytes) or image.is_file() for image in named):
            return found
    where = " or ".join(map(str, folders))
    warnings.warn(
        f"none of the {len(named):,} pictures that the items name is in {where}: "
        "name the folder that their paths start from, --data.path DIR",
        stacklevel=2,
    )
    return found


def audience(parser: argparse.ArgumentParser) -> Run:
    """Rank users for items."""
    parser.add_argument("artefact", metavar="ART", help="folder, or repository id on the hub")
    parser.add_argument("--items", nargs="+", required=True, help="a file of ids, or ids")
    parser.add_argument("-k", type=int, default=100, help="users per item")
    parser.add_argument("--output", metavar="FILE", help=".parquet, .csv or .jsonl")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.epilog = "example:\n  mmalign audience ART --items new_ids.txt -k 100"

    def run(options: argparse.Namespace) -> int:
        refuse_overrides(options)
        check_output(options.output)
        recommender = Recommender.from_pretrained(options.artefact)
        frame = recommender.audience(read_ids(options.items, ITEM_ID), options.k)
        write_table(frame, options.output, options.json)
        return 0

    return run


def explain(parser: argparse.ArgumentParser) -> Run:
    """Say what an item is placed by."""
    parser.add_argument("artefact", metavar="ART", help="folder, or repository id on the hub")
    parser.add_argument("item", metavar="ITEM", help="its id")
    parser.add_argument("--user", help="only among this user's items")
    parser.add_argument("-k", type=int, default=5, help="warm items to name")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.epilog = "example:\n  mmalign explain ART 1234 --user 56"

    def run(options: argparse.Namespace) -> int:
        refuse_overrides(options)
        recommender = Recommender.from_pretrained(options.artefact)
        found = recommender.explain(options.item, options.user, k=options.k)
        if options.json:
            print_json(asdict(found))
        else:
            print("\n".join(_lines(found, options.user)))
        return 0

    return run


def _lines(found: Explanation, user: str | None) -> list[str]:
    if not found.neighbours:
        which = "warm item" if user is None else f"item that {user} took"
        return [f"no {which} resembles {found.item_id}"]
    lines = [f"{found.item_id} stands near ({_shares(found.shares)})"]
    width = max(len(n.item_id) for n in found.neighbours)
    for n in found.neighbours:
        lines.append(f"  {n.item_id:{width}}  {n.similarity:.3f}  {_shares(n.shares)}")
    return lines


def _shares(shares: Mapping[str, float]) -> str:
    ordered = sorted(shares.items(), key=lambda pair: -pair[1])
    return ", ".join(f"{name} {share:.0%}" for name, share in ordered)


class _Fitted:
    """An attribute encoder that keeps what it learned on the train items."""

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder
        self.transform, self.problems = encoder.transform, encoder.problems

    def fit(self, columns: Mapping[str, Any], rows: Any) -> Any:
        return self._encoder


def _fitted_encoders(recommender: Recommender, config: ExperimentConfig) -> dict[str, Encoder]:
    """The encoders an artefact was fitted with; one is loaded when something is to be encoded."""
    if not recommender.encoders:
        return {}
    try:
        here = load_encoders(config, recommender.encoders)
    except EncoderError as error:
        wanted = ", ".join(
            f"--encoders.{modality} PATH (fingerprint {fingerprint[:12]})"
            for modality, fingerprint in recommender.encoders.items()
        )
        raise EncoderError(
            "an encoder the artefact was fitted with is not here",
            got=str(error),
            fix=f"give {wanted}",
        ) from error
    for modality, fingerprint in recommender.encoders.items():
        if modality in here and here[modality].fingerprint != fingerprint:
            raise EncoderError(
                f"the {modality} encoder here is not the one the artefact was fitted with",
                got=here[modality].fingerprint[:12],
                fix=f"give --encoders.{modality} PATH of the one with fingerprint "
                f"{fingerprint[:12]}, or fit anew",
            )
    return {
        modality: encoder for modality, encoder in here.items() if modality in recommender.encoders
    }


COMMANDS = {"add-items": add_command, "audience": audience, "explain": explain}
