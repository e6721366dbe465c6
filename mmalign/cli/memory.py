"""How the process holds its memory."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["keep_freed_memory", "without_collecting"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of <malloc.h>
_ONE_GIGABYTE = 2**30


def keep_freed_memory() -> bool:
    """Let the C library keep the blocks that are freed, for the next batch that asks for them.

    An encoder asks for the same large blocks in every batch. By default glibc gives each back to
    the system and gets a new one, page by page: on a small virtual machine that took longer than
    encoding a picture. The price is that a process stays as large as it once was, so only a
    program does this, never the library on import.

    Returns:
        Whether there was a glibc that could be told.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # musl, say
        return False
    return all(mallopt(option, _ONE_GIGABYTE) for option in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD))


@contextmanager
def without_collecting() -> Iterator[None]:
    """Put the garbage collector off while libraries are imported.

    They make very many objects, and hardly one of them is garbage: looking for it again and again
    takes a tenth of the time that a command needs to start.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
