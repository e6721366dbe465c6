"""``mmalign evaluate``."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from mmalign.cli.setup import add_config_option, config_over
from mmalign.cli.tables import print_json
from mmalign.data.catalog import Catalog
from mmalign.evaluation.protocol import evaluate
from mmalign.experiment import ExperimentConfig
from mmalign.progress import shows_bars
from mmalign.recommender import Recommender
from mmalign.recommender.held_out import check_held_out

__all__ = ["COMMANDS", "seen_splits"]


def evaluate_artefact(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
    """Measure an artefact by the protocol."""
    add_config_option(parser, "mmalign evaluate ART --split test")
    parser.add_argument("artefact", metavar="ART", help="folder, or repository id on the hub")
    parser.add_argument("--split", choices=("valid", "test"), default="test")
    parser.add_argument("--exclude-seen", help="train,valid (default), train or none")
    parser.add_argument("--json", action="store_true", help="print JSON")

    def run(options: argparse.Namespace) -> int:
        recommender = Recommender.from_pretrained(options.artefact)
        config = config_over(recommender.config, options, "data", "evaluation")
        catalog = Catalog.read(config.data)
        check_held_out(recommender, catalog, options.split)
        found = evaluate(
            recommender.for_catalog(catalog),
            catalog,
            options.split,
            ks=config.evaluation.ks,
            exclude_seen=seen_splits(options.exclude_seen, config),
            progress=shows_bars(),
        )
        if options.json:
            print_json(found.to_dict())
        else:
            from rich.console import Console

            from mmalign.evaluation.report import rich_table

            Console().print(rich_table(found))
        return 0

    return run


def seen_splits(text: str | None, config: ExperimentConfig) -> tuple[str, ...]:
    """Read ``train,valid``, ``train`` or ``none``; without a text, what the config says.

    Example:
        >>> seen_splits("train,valid", ExperimentConfig()), seen_splits("none", ExperimentConfig())
        (('train', 'valid'), ())
    """
    if text is None:
        return config.evaluation.exclude_seen
    return () if text == "none" else tuple(part.strip() for part in text.split(","))


COMMANDS = {"evaluate": evaluate_artefact}
