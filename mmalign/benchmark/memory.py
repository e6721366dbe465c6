"""How much memory this process holds, and held at most."""

from __future__ import annotations

import re
import sys
from pathlib import Path

__all__ = ["peak_memory", "present_memory"]

_STATUS = Path("/proc/self/status")


def peak_memory() -> int:
    """Most bytes of this program that were in memory at once.

    On Linux it is read from ``VmHWM``, since what ``getrusage`` says of a child process begins
    with the size of the parent that started it.
    """
    found = _status("VmHWM")
    return _usage() if found is None else found


def present_memory() -> int:
    """Bytes in memory now; where the system does not say, the most there were so far."""
    found = _status("VmRSS")
    return _usage() if found is None else found


def _status(field: str) -> int | None:
    if not _STATUS.is_file():
        return None
    found = re.search(rf"^{field}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _usage() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
