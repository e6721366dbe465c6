"""YAML that runs: one small file per experiment, and one per encoder preset in ``encoders``."""

from __future__ import annotations

if __name__ != "mmalign.configs":
    raise ImportError(
        "this folder is the package mmalign.configs: install the project (pip install -e .) "
        "and import mmalign.configs"
    )
