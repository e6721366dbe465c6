"""Run all benchmarks: ``python results/speed.py`` writes what they print to ``results/speed.md``.

Needs the extras ``dev`` and ``offline``, and the films for the rows on films. Run it on a machine
that does nothing else.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from mmalign.benchmark.environment import provenance

HERE = Path(__file__).parent


def main() -> int:
    """Write the lines of all benchmarks, also of those that fail."""
    options = ["-m", "benchmark", "-s", "--timeout=0", "-q", "-p", "no:cacheprovider"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/benchmarks", *options],
        cwd=HERE.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    origin = provenance()
    printed = r"^(?=.*\d)(?!\s|.*(?:passed|failed|Error|print\()).+: .+$"
    lines = re.findall(printed, run.stdout, re.MULTILINE)
    (HERE / "speed.md").write_text(
        "# Speed\n\n"
        f"`python results/speed.py`, {origin}.\n\n"
        + "".join(f"- {line.lstrip('.')}\n" for line in lines)
        + f"\n{run.stdout.strip().splitlines()[-1]}\n",
        encoding="utf-8",
    )
    print((HERE / "speed.md").read_text())
    return run.returncode


if __name__ == "__main__":
    sys.exit(main())
