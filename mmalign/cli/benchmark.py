"""``mmalign benchmark``."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmalign.atomic import check_writable
from mmalign.benchmark.extras import require_extras
from mmalign.cli.setup import (
    add_config_option,
    attribute_encoder,
    encode,
    load_encoders,
    read_config,
)
from mmalign.data.audit import audit
from mmalign.data.catalog import Catalog
from mmalign.errors import DataError, TrainingError
from mmalign.experiment import ExperimentConfig
from mmalign.interfaces import Feature
from mmalign.models import MODELS, modalities_of

__all__ = ["COMMANDS"]

REPORT = "benchmark"


def benchmark(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
    """Tune, run and compare all models; run again, it goes on where it was broken off."""
    add_config_option(
        parser, "mmalign benchmark --config configs/movies.yaml --data.path DIR --output RESULTS"
    )
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="report, and what was done so far"
    )

    def run(options: argparse.Namespace) -> int:
        require_extras()
        return run_benchmark(read_config(options), Path(options.output), _command())

    return run


def run_benchmark(config: ExperimentConfig, output: Path, command: str) -> int:
    """Do the whole benchmark.

    Args:
        config: The experiment; ``benchmark`` says which models and how much effort.
        output: Folder of the report and of what was done so far.
        command: The line to put into the report.

    Returns:
        0.

    Raises:
        TrainingError: A model failed; the report is written and holds the others.
        MMAlignError: The config or the data cannot be used.
    """
    from mmalign.benchmark.inputs import Digest
    from mmalign.benchmark.plan import make_plan
    from mmalign.benchmark.plots import draw
    from mmalign.benchmark.results import write_text
    from mmalign.benchmark.runs import run_plan
    from mmalign.benchmark.summary import summarise
    from mmalign.benchmark.table import markdown

    check_writable(output)
    catalog = Catalog.read(config.data)
    found = audit(catalog)
    for notice in (*catalog.notices, *found.warnings):
        print(f"note: {notice}", file=sys.stderr)
    if found.errors:
        raise DataError(found.errors[0], fix="see mmalign validate for all that is wrong")
    make_plan(config, catalog)  # says what is wrong before hours of encoding
    features, modalities = benchmark_features(config, catalog)
    plan = make_plan(config, catalog, Digest.of(catalog, features), modalities)
    outcome = run_plan(plan, features, output)
    summary = summarise(outcome, catalog, command)
    text = json.dumps(summary, indent=2, allow_nan=False, ensure_ascii=False)
    write_text(output / f"{REPORT}.json", text + "\n")
    plots = [f"plots/{name}" for name in draw(summary, output / "plots")]
    write_text(output / f"{REPORT}.md", markdown(summary, plots))
    print(f"wrote {output / REPORT}.md", file=sys.stderr)
    if outcome.failed:
        failed = ", ".join(outcome.failed)
        raise TrainingError(f"failed: {failed}", fix=f"see {output / 'logs'}, and run again")
    return 0


def benchmark_features(
    config: ExperimentConfig, catalog: Catalog
) -> tuple[dict[str, Feature], dict[str, tuple[str, ...]]]:
    """Encode what any of the models needs.

    Returns:
        All features, and model to the names of those that ``mmalign fit`` would give it.
    """
    attributes = attribute_encoder(config.data)
    names = [n for n in config.benchmark.models or tuple(MODELS) if MODELS[n].uses_content]
    encoders: dict[str, Any] = {}
    encoded: dict[tuple[str, ...], list[str]] = {}
    modalities = {}
    for name in names:
        one = replace(config, model=replace(config.model, name=name))
        wanted = modalities_of(one.model)
        if wanted not in encoded:
            found = load_encoders(one)
            encoded[wanted] = list(found)
            encoders = {**found, **encoders}
        modalities[name] = (*encoded[wanted], *config.data.attributes, *catalog.features)
    if not names or not (encoders or attributes or catalog.features):
        return {}, {}
    features, _ = encode(config, catalog, encoders, attributes)
    return features, modalities


def _command() -> str:
    return shlex.join(["mmalign", *sys.argv[1:]])


COMMANDS = {"benchmark": benchmark}
