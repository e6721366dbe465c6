"""``mmalign demo``: a generated shop, from its raw files to a report, without a network."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from rich.console import Console

from mmalign.atomic import check_writable
from mmalign.demo.shop import MIN_ITEMS, MIN_USERS
from mmalign.demo.steps import Steps
from mmalign.errors import ConfigError

__all__ = ["COMMANDS"]


def demo(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
    """Go the whole way on a small shop."""
    parser.add_argument(
        "--output", default="demo-report", metavar="DIR", help="folder for all it makes"
    )
    parser.add_argument(
        "--items", type=int, default=2000, metavar="N", help="size of the catalogue"
    )
    parser.add_argument("--users", type=int, default=3000, metavar="N", help="number of shoppers")
    parser.epilog = (
        "example:\n  mmalign demo --items 600 --users 800 --output small-demo\n\n"
        "any key of configs/demo.yaml can be set: --seed 1 --trainer.max_epochs 10"
    )

    def run(options: argparse.Namespace) -> int:
        for name, least in (("items", MIN_ITEMS), ("users", MIN_USERS)):
            count = getattr(options, name)
            if count < least:
                raise ConfigError(
                    f"--{name} must be {least} or more", got=count, fix="leave it out for a shop"
                )
        output = Path(options.output)
        check_writable(output)
        os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports the hub's client
        console = Console()
        steps = Steps(console)
        with steps("load the libraries"):
            room = import_module("mmalign.cli.demo_run")
        room.run_demo(
            output,
            num_items=options.items,
            num_users=options.users,
            overrides=options.overrides,
            steps=steps,
            console=console,
        )
        return 0

    return run


COMMANDS = {"demo": demo}
