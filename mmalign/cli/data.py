"""``mmalign validate`` and ``mmalign encode``."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from mmalign.cli.setup import (
    add_config_option,
    attribute_encoder,
    encode,
    load_encoders,
    read_config,
)
from mmalign.cli.tables import print_json
from mmalign.data.audit import audit
from mmalign.data.catalog import Catalog
from mmalign.errors import DataError

__all__ = ["COMMANDS"]

Run = Callable[[argparse.Namespace], int]


def validate(parser: argparse.ArgumentParser) -> Run:
    """Read everything and say what is there and what is wrong."""
    add_config_option(parser, "mmalign validate --config configs/movies.yaml --data.path DIR")
    parser.add_argument(
        "--strict",
        action="store_true",
        help="warnings fail too, and so does a model that learns from what it must not see",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")

    def run(options: argparse.Namespace) -> int:
        config = read_config(options)
        catalog = Catalog.read(config.data)
        found = audit(catalog)
        leaks: tuple[str, ...] = ()
        if options.strict and found.ok:
            from mmalign.cli.leakage import strict_audit  # takes long to import

            found, leaked = strict_audit(config, catalog)
            leaks = tuple(map(str, leaked))
        if options.json:
            print_json(found.to_dict() | ({"leaks": leaks} if options.strict else {}))
        else:
            lines = [f"leak: {leak}" for leak in leaks]
            if options.strict and found.ok and not leaks:
                unread = "test rows, nor the content of items outside train and valid"
                lines = [f"leaks: none, no score of {config.model.name} depends on {unread}"]
            print("\n".join([*found.lines(), *lines]))
        wrong = (*found.errors, *leaks, *(found.warnings if options.strict else ()))
        if wrong:
            more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            raise DataError(f"{wrong[0]}{more}")
        return 0

    return run


def encode_items(parser: argparse.ArgumentParser) -> Run:
    """Fill the feature cache."""
    add_config_option(parser, "mmalign encode --config configs/movies.yaml --data.path DIR")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")

    def run(options: argparse.Namespace) -> int:
        config = read_config(options)
        catalog = Catalog.read(config.data)
        encoders, attributes = load_encoders(config), attribute_encoder(config.data)
        _, report = encode(config, catalog, encoders, attributes, quiet=options.json)
        if options.json:
            print_json(report.to_dict())
        return 0

    return run


COMMANDS = {"validate": validate, "encode": encode_items}
