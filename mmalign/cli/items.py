"""``mmalign add-items``, ``mmalign audience`` and ``mmalign explain``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmalign.atomic import check_writable
from mmalign.cli.setup import (
    encode,
    load_encoders,
    print_json,
    read_ids,
    with_overrides,
    write_table,
)
from mmalign.data.catalog import Catalog
from mmalign.data.reading import read_table
from mmalign.errors import DataError, EncoderError
from mmalign.interfaces import ITEM_ID, Encoder
from mmalign.recommender import Recommender

__all__ = ["COMMANDS", "add_items"]

Run = Callable[[argparse.Namespace], int]


def add_command(parser: argparse.ArgumentParser) -> Run:
    """Take new items into an artefact."""
    parser.add_argument("artefact", metavar="ART")
    parser.add_argument("items", metavar="ITEMS", help=".parquet, .csv or .jsonl, as items of fit")
    parser.add_argument(
        "--output", required=True, metavar="ART2", help="folder of the new artefact"
    )
    parser.epilog = (
        "example:\n  mmalign add-items ART new_items.parquet --output ART2\n\n"
        "paths of pictures are relative to the file, or to --data.path DIR"
    )

    def run(options: argparse.Namespace) -> int:
        check_writable(Path(options.output))
        recommender = Recommender.from_pretrained(options.artefact)
        added = add_items(recommender, Path(options.items), options.overrides)
        recommender.save_pretrained(options.output)
        print(f"added {added:,} items, saved {options.output}", file=sys.stderr)
        return 0

    return run


def add_items(recommender: Recommender, file: Path, overrides: Mapping[str, Any]) -> int:
    """Encode the items of a file and append them to a recommender.

    Returns:
        How many.

    Raises:
        DataError: The file cannot be used, or an item is known already.
        EncoderError: An encoder here is not the one the artefact was fitted with.
    """
    from mmalign.encoders import AttributeEncoder

    if not file.is_file():
        raise DataError("no such file", got=str(file), fix="name a file of items")
    config = with_overrides(recommender.config, overrides)
    folder = config.data.path if "path" in overrides.get("data", {}) else file.parent
    table = read_table(file, config.data.text_columns())
    catalog = Catalog.from_pandas(table, None, config=config.data, root=folder)
    encoders = load_encoders(config) if recommender.encoders else {}
    _same_encoders(encoders, recommender.encoders)
    attributes = None
    if recommender.attributes:
        attributes = _Fitted(AttributeEncoder.from_dict(recommender.attributes))
    features, _ = encode(config, catalog, encoders, attributes)
    recommender.add_items(catalog.items, features)
    return catalog.num_items


def audience(parser: argparse.ArgumentParser) -> Run:
    """Rank users for items."""
    parser.add_argument("artefact", metavar="ART")
    parser.add_argument("--items", nargs="+", required=True, help="a file of ids, or ids")
    parser.add_argument("-k", type=int, default=100, help="users per item")
    parser.add_argument("--output", metavar="FILE", help=".parquet, .csv or .jsonl")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.epilog = "example:\n  mmalign audience ART --items new_ids.txt -k 100"

    def run(options: argparse.Namespace) -> int:
        recommender = Recommender.from_pretrained(options.artefact)
        frame = recommender.audience(read_ids(options.items, ITEM_ID), options.k)
        write_table(frame, options.output, options.json)
        return 0

    return run


def explain(parser: argparse.ArgumentParser) -> Run:
    """Say what an item is placed by."""
    parser.add_argument("artefact", metavar="ART")
    parser.add_argument("item", metavar="ITEM")
    parser.add_argument("--user", help="only among this user's items")
    parser.add_argument("-k", type=int, default=5, help="warm items to name")
    parser.epilog = "example:\n  mmalign explain ART 1234 --user 56"

    def run(options: argparse.Namespace) -> int:
        recommender = Recommender.from_pretrained(options.artefact)
        print_json(asdict(recommender.explain(options.item, options.user, k=options.k)))
        return 0

    return run


class _Fitted:
    """An attribute encoder that keeps what it learned on the train items."""

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder
        self.transform, self.problems = encoder.transform, encoder.problems

    def fit(self, columns: Mapping[str, Any], rows: Any) -> Any:
        return self._encoder


def _same_encoders(here: Mapping[str, Encoder], fitted: Mapping[str, str]) -> None:
    for modality, fingerprint in fitted.items():
        if here[modality].fingerprint != fingerprint:
            raise EncoderError(
                f"the {modality} encoder here is not the one the artefact was fitted with",
                got=here[modality].fingerprint[:12],
                fix=f"use the encoder with fingerprint {fingerprint[:12]}, or fit anew",
            )


COMMANDS = {"add-items": add_command, "audience": audience, "explain": explain}
