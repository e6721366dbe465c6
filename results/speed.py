"""Run all benchmarks: ``python results/speed.py`` writes what they print to ``results/speed.md``.

Needs the extras ``dev`` and ``offline``, and the films for the rows on films. Run it on a machine
that does nothing else.
"""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

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
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    printed = r"^(?=.*\d)(?!\s|.*(?:passed|failed|Error|print\()).+: .+$"
    lines = re.findall(printed, run.stdout, re.MULTILINE)
    threads = os.environ.get("OMP_NUM_THREADS", "default")
    (HERE / "speed.md").write_text(
        "# Speed\n\n"
        f"`python results/speed.py`, commit {commit}, {datetime.date.today()}, "
        f"{platform.machine()}, {os.cpu_count()} cores, {threads} threads, no GPU.\n\n"
        + "".join(f"- {line.lstrip('.')}\n" for line in lines)
        + f"\n{run.stdout.strip().splitlines()[-1]}\n",
        encoding="utf-8",
    )
    print((HERE / "speed.md").read_text())
    return run.returncode


if __name__ == "__main__":
    sys.exit(main())
