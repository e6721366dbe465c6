"""Training with Lightning: modules, data modules, sampling and the scripts that run them.

The folder stands at the root of the repository and is imported as ``mmalign.trainers``.
"""

from __future__ import annotations

if __name__ != "mmalign.trainers":
    raise ImportError(
        f"this folder was imported as {__name__!r}: write 'import mmalign.trainers', and install "
        "the checkout with: pip install -e ."
    )
