"""Where a number was measured: versions, commit, hardware."""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["commit", "hardware", "provenance", "versions"]

_LIBRARIES = ("numpy", "scipy", "torch", "lightning", "torch-geometric", "optuna")
_HERE = Path(__file__).resolve()


def versions() -> dict[str, str]:
    """Versions of mmalign, Python and the libraries that numbers depend on."""
    from mmalign import __version__

    found = {"mmalign": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """Short commit of the source with ``+changes`` when files differ; empty outside of git."""
    if _git("ls-files", "--error-unmatch", _HERE.name) is None:
        return ""  # installed, perhaps inside the repository of something else
    head = _git("rev-parse", "--short", "HEAD") or ""
    return f"{head}+changes" if _git("status", "--porcelain", "--untracked-files=no") else head


def hardware() -> dict[str, str]:
    """Processor, cores, memory, threads and GPU."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": str(cores),
        "threads": str(torch.get_num_threads()),
    }
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        found["memory"] = f"{size / 2**30:.1f} GiB"
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def provenance() -> str:
    """Commit, date and hardware in a line, for the head of a table."""
    found = hardware()
    counts = f"{found['cores']} cores, {found['threads']} threads"
    place = f"{found['system']}, {counts}, {found.get('gpu', 'no GPU')}"
    return f"commit {commit()}, {datetime.date.today()}, {place}"


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        found = re.search(r"^model name\s*:\s*(.+)$", information.read_text(), re.MULTILINE)
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()


def _git(*arguments: str) -> str | None:
    try:
        ran = subprocess.run(
            ["git", "-C", str(_HERE.parent), *arguments],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return ran.stdout.strip()
