"""``mmalign evaluate``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace

from rich.console import Console

from mmalign.cli.setup import catalog_of, print_json
from mmalign.evaluation.protocol import evaluate
from mmalign.evaluation.report import rich_table
from mmalign.recommender import Recommender

__all__ = ["COMMANDS"]


def evaluate_artefact(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
    """Measure an artefact by the protocol."""
    parser.add_argument("artefact", metavar="ART", help="folder, or repository id on the hub")
    parser.add_argument("--split", choices=("valid", "test"), default="test")
    parser.add_argument("--exclude-seen", default=None, help="train,valid (default), train or none")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.epilog = (
        "example:\n  mmalign evaluate ART --split test\n\n"
        "the data is where the artefact was fitted, or --data.path DIR"
    )

    def run(options: argparse.Namespace) -> int:
        recommender = Recommender.from_pretrained(options.artefact)
        catalog = catalog_of(recommender, options.overrides)
        settings = recommender.config.evaluation
        if options.exclude_seen is not None:
            settings = replace(settings, exclude_seen=parse_seen(options.exclude_seen))
        found = evaluate(
            recommender.for_catalog(catalog),
            catalog,
            options.split,
            ks=settings.ks,
            exclude_seen=settings.exclude_seen,
        )
        if options.json:
            print_json(found.to_dict())
        else:
            Console().print(rich_table(found))
        return 0

    return run


def parse_seen(text: str) -> tuple[str, ...]:
    """Read ``train,valid``, ``train`` or ``none``.

    Example:
        >>> parse_seen("train,valid"), parse_seen("none")
        (('train', 'valid'), ())
    """
    return () if text == "none" else tuple(part.strip() for part in text.split(","))


COMMANDS = {"evaluate": evaluate_artefact}
