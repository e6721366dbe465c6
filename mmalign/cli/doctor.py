"""``mmalign doctor``."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from mmalign.cli.setup import refuse_overrides
from mmalign.cli.tables import print_json

__all__ = ["COMMANDS"]

PACKAGES = (
    "mmalign",
    "torch",
    "torch-geometric",
    "lightning",
    "transformers",
    "open_clip_torch",
    "timm",
    "datasets",
    "numpy",
    "scipy",
    "scikit-learn",
    "pandas",
)


def doctor(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
    """Say what is installed and what can be loaded."""
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.epilog = "example:\n  mmalign doctor"

    def run(options: argparse.Namespace) -> int:
        refuse_overrides(options)
        found = {"versions": _versions(), "devices": _devices(), "encoders": _encoders()}
        if options.json:
            print_json(found)
            return 0
        for title, entries in found.items():
            print(title)
            width = max(map(len, entries))
            for name, value in entries.items():
                print(f"  {name:{width}}  {value}")
        return 0

    return run


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = f"absent: pip install {name}"
    return found


def _devices() -> dict[str, str]:
    import torch

    devices: dict[str, Any] = {"cpu": f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"}
    for index in range(torch.cuda.device_count()):
        devices[f"cuda:{index}"] = torch.cuda.get_device_name(index)
    if torch.backends.mps.is_available():
        devices["mps"] = "available"
    return devices


def _encoders() -> dict[str, str]:
    from mmalign.encoders import available_presets, read_preset
    from mmalign.encoders.resolve import resolve
    from mmalign.errors import EncoderError

    found = {}
    for name in available_presets():
        try:
            source = resolve(read_preset(name), download=False)
            found[name] = f"ready, from {source.origin}"
        except EncoderError as error:
            found[name] = f"not here: {str(error).rpartition('): ')[2]}"
    return found


COMMANDS = {"doctor": doctor}
