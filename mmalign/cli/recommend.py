"""``mmalign recommend``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmalign.cli.evaluate import seen_splits
from mmalign.cli.setup import add_config_option, config_over
from mmalign.cli.tables import check_output, read_ids, write_table
from mmalign.data.catalog import Catalog
from mmalign.errors import ConfigError
from mmalign.evaluation.protocol import rank_slice
from mmalign.evaluation.slices import build_slice
from mmalign.experiment import ExperimentConfig
from mmalign.interfaces import ITEM_ID, SLICES, USER_ID
from mmalign.models import modalities_of
from mmalign.progress import advancing, shows_bars
from mmalign.ranking import ranked_lists
from mmalign.recommender import Recommender
from mmalign.recommender.blanks import blank_items, warn_of_blanks, warn_of_strangers
from mmalign.recommender.held_out import check_held_out

__all__ = ["COMMANDS"]


def recommend(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
    """Rank items for users of the artefact, of a split, or for a history."""
    add_config_option(
        parser,
        "mmalign recommend ART --users all --candidates cold -k 20 --output recs.csv\n"
        "  mmalign recommend ART --history 12 345 -k 10",
    )
    parser.add_argument("artefact", metavar="ART", help="folder, or repository id on the hub")
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--users", nargs="+", default=["all"], help="all, a file of ids, or ids")
    who.add_argument("--history", nargs="+", metavar="ITEM", help="items of an unseen user")
    parser.add_argument("-k", type=int, default=20, help="length of each list")
    parser.add_argument("--candidates", choices=SLICES, default="all")
    parser.add_argument(
        "--split", choices=("valid", "test"), help="users, candidates and exclusions of a split"
    )
    parser.add_argument("--exclude-seen", help="train,valid (default), train or none")
    parser.add_argument(
        "--filter",
        action="append",
        help="condition on an item column, such as 'price < 20', \"genres == 'Comedy'\" or "
        "\"date > '2020-06-01'\"; may be repeated, and all must hold",
    )
    parser.add_argument("--output", metavar="FILE", help=".parquet, .csv or .jsonl")
    parser.add_argument("--json", action="store_true", help="print JSON")

    def run(options: argparse.Namespace) -> int:
        check_output(options.output)
        for name, other in (("history", "split"), ("filter", "split"), ("exclude_seen", "history")):
            if getattr(options, name) and getattr(options, other):
                raise ConfigError(
                    f"--{name.replace('_', '-')} does not go with --{other}",
                    fix="leave one of them out",
                )
        if "all" in options.users and len(options.users) > 1:
            raise ConfigError(
                "--users all does not go with ids", got=options.users, fix="give all or ids"
            )
        recommender = Recommender.from_pretrained(options.artefact)
        sections = ("data", "evaluation") if options.split else ("evaluation",)
        config = config_over(recommender.config, options, *sections)
        rank = _of_history if options.history else _of_split if options.split else _of_users
        frame = rank(recommender, config, options)
        write_table(frame, options.output, options.json, nothing="no candidates")
        return 0

    return run


def _of_history(
    recommender: Recommender, config: ExperimentConfig, options: argparse.Namespace
) -> pd.DataFrame:
    return recommender.fold_in(
        read_ids(options.history, ITEM_ID),
        options.k,
        candidates=options.candidates,
        filter=options.filter,
    )


def _of_users(
    recommender: Recommender, config: ExperimentConfig, options: argparse.Namespace
) -> pd.DataFrame:
    return recommender.recommend(
        "all" if options.users == ["all"] else read_ids(options.users, USER_ID),
        options.k,
        candidates=options.candidates,
        exclude_seen=seen_splits(options.exclude_seen, config),
        filter=options.filter,
        progress=shows_bars(),
    )


def _of_split(
    recommender: Recommender, config: ExperimentConfig, options: argparse.Namespace
) -> pd.DataFrame:
    """Lists for exactly the users of a split's slice, from its candidates."""
    catalog = Catalog.read(config.data)
    check_held_out(recommender, catalog, options.split)
    seen = seen_splits(options.exclude_seen, config)
    part = build_slice(catalog, options.split, options.candidates, seen)
    k = min(options.k, max(len(part.candidates), 1))
    with advancing("ranking", len(part.users), shows_bars()) as advance:
        positions, scores = rank_slice(recommender.for_catalog(catalog), part, k, advance=advance)
    users, items = catalog.user_ids[part.users], catalog.item_ids[part.candidates]
    frame = ranked_lists(positions, scores, users, items, (USER_ID, ITEM_ID))
    _warn(recommender, frame, users[catalog.matrix("train")[part.users].getnnz(axis=1) == 0])
    if options.users != ["all"]:
        wanted = read_ids(options.users, USER_ID)
        absent = int((~np.isin(catalog.user_rows(wanted), part.users)).sum())
        if absent:
            what = f"{absent} users have no {options.split} row to rank for and get no list"
            print(f"note: {what}", file=sys.stderr)
        frame = frame[frame[USER_ID].isin(wanted)]
    return frame


def _warn(recommender: Recommender, frame: pd.DataFrame, strangers: NDArray[np.object_]) -> None:
    """Say of whom and of what nothing is known, as the recommender does of its own lists."""
    warn_of_strangers(strangers.tolist())
    read = modalities_of(recommender.config.model)
    blank = recommender.item_ids[blank_items(recommender.model, recommender.features, read)]
    shown = np.intersect1d(frame[ITEM_ID].to_numpy(dtype=object), blank)
    warn_of_blanks(shown, "their order among themselves says nothing")


COMMANDS = {"recommend": recommend}
