"""``mmalign recommend``."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import pandas as pd

from mmalign.cli.evaluate import parse_seen
from mmalign.cli.setup import catalog_of, read_ids, write_table
from mmalign.errors import ConfigError
from mmalign.evaluation.protocol import rank_slice
from mmalign.evaluation.slices import build_slice
from mmalign.interfaces import ITEM_ID, SLICES, USER_ID
from mmalign.ranking import ranked_lists
from mmalign.recommender import Recommender

__all__ = ["COMMANDS"]


def recommend(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
    """Rank items for users of the artefact, of a split, or for a history."""
    parser.add_argument("artefact", metavar="ART", help="folder, or repository id on the hub")
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--users", nargs="+", default=["all"], help="all, a file of ids, or ids")
    who.add_argument("--history", nargs="+", metavar="ITEM", help="items of an unseen user")
    parser.add_argument("-k", type=int, default=20, help="length of each list")
    parser.add_argument("--candidates", choices=SLICES, default="all")
    parser.add_argument(
        "--split", choices=("valid", "test"), help="users and candidates of a split"
    )
    parser.add_argument("--exclude-seen", default="train,valid", help="train,valid, train or none")
    parser.add_argument("--filter", help="condition on item columns, such as 'price < 20'")
    parser.add_argument("--output", metavar="FILE", help=".parquet, .csv or .jsonl")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.epilog = (
        "example:\n  mmalign recommend ART --users all --candidates cold -k 20 --output recs.csv"
    )

    def run(options: argparse.Namespace) -> int:
        recommender = Recommender.from_pretrained(options.artefact)
        if options.history:
            history = read_ids(options.history, ITEM_ID)
            frame = recommender.fold_in(
                history, options.k, candidates=options.candidates, filter=options.filter
            )
        elif options.split:
            frame = _of_split(recommender, options)
        else:
            users = "all" if options.users == ["all"] else read_ids(options.users, USER_ID)
            frame = recommender.recommend(
                users,
                options.k,
                candidates=options.candidates,
                exclude_seen=parse_seen(options.exclude_seen),
                filter=options.filter,
            )
        write_table(frame, options.output, options.json)
        return 0

    return run


def _of_split(recommender: Recommender, options: argparse.Namespace) -> pd.DataFrame:
    if options.filter:
        raise ConfigError("--filter does not go with --split", fix="leave one of them out")
    catalog = catalog_of(recommender, options.overrides)
    seen = parse_seen(options.exclude_seen)
    part = build_slice(catalog, options.split, options.candidates, seen)
    positions, scores = rank_slice(recommender.for_catalog(catalog), part, options.k)
    users, items = catalog.user_ids[part.users], catalog.item_ids[part.candidates]
    frame = ranked_lists(positions, scores, users, items, (USER_ID, ITEM_ID))
    if options.users != ["all"]:
        wanted = read_ids(options.users, USER_ID)
        catalog.user_rows(wanted)
        frame = frame[frame[USER_ID].isin(wanted)]
    return frame


COMMANDS = {"recommend": recommend}
