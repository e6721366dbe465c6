"""Folders that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mmalign.errors import DataError

__all__ = ["check_writable", "recover", "whole_folder"]

ABANDONED = 24 * 60 * 60
"""Seconds after which an unfinished folder belongs to a process that died."""
ATTEMPTS = 10
"""Times that a reader may put the old folder back while it is being replaced."""


@contextmanager
def whole_folder(target: Path, own: Collection[str] | None = None) -> Iterator[Path]:
    """Write a folder through a temporary sibling that takes its place at the end.

    Whenever the process dies, the old folder or the new one is there, whole:
    :func:`recover` puts the old one back if it died between the two renames. A link to a folder
    stays a link; what it points at is replaced.

    Args:
        target: The folder.
        own: Names of the entries that may be replaced, see :func:`check_writable`.

    Yields:
        The sibling to write into.

    Raises:
        DataError: The folder cannot be written, or holds what is not ours.
    """
    target = target.resolve()
    recover(target)
    check_writable(target, own)
    part = target.with_name(f".{target.name}.writing-{secrets.token_hex(4)}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target)
        part.mkdir()
    except OSError as error:
        raise _unwritable(f"{target}: {_reason(error)}") from None
    try:
        yield part
        _settle(part)
        _swap(part, target)
    except OSError as error:
        raise DataError(
            f"could not write {target}", got=_reason(error), fix="free space or name another folder"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def recover(target: Path) -> None:
    """Put back the folder that a process moved aside and died before replacing.

    Such a process leaves what it wrote as well. One that died after it replaced the folder does
    not: what it left aside is old, and stays so when the folder is moved away.
    """
    target = target.resolve()
    aside = _aside(target)
    if aside.is_dir() and not target.exists() and any(_parts(target)):
        with suppress(OSError):  # somebody else was quicker, or may write here and we may not
            os.rename(aside, target)


def check_writable(target: Path, own: Collection[str] | None = None) -> None:
    """Fail before long work, not after it, if a folder could not be written at the end.

    Args:
        target: The folder that is going to be replaced.
        own: Names of the entries it may hold; one with any other is left alone, since replacing
            it would lose what somebody else put there. None does not look.

    Raises:
        DataError: The target is a file or a mount point, holds other entries, or the nearest
            existing parent cannot be written.
    """
    target = target.resolve()
    if target.exists() and not target.is_dir():
        raise DataError("the output is a file", got=str(target), fix="name a folder")
    if os.path.ismount(target):
        raise DataError(
            "the output is a mount point, which cannot be replaced as a whole",
            got=str(target),
            fix="name a folder inside it",
        )
    if own is not None and target.is_dir():
        others = sorted(entry.name for entry in target.iterdir() if entry.name not in own)
        if others:
            raise DataError(
                f"the output folder {target} holds other files, which would be lost",
                got=others[0],
                fix="name a new or empty folder, or move them away",
            )
    parent = next(p for p in target.parents if os.path.exists(p))
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise _unwritable(str(target))


def _aside(target: Path) -> Path:
    return target.parent / f".{target.name}.old"


def _parts(target: Path) -> Iterator[Path]:
    """What is being written to take the folder's place, or was when its process died."""
    beginning = f".{target.name}.writing-"
    return (entry for entry in target.parent.iterdir() if entry.name.startswith(beginning))


def _swap(part: Path, target: Path) -> None:
    aside = _aside(target)
    for attempt in range(1, ATTEMPTS + 1):
        if target.exists():
            shutil.rmtree(aside, ignore_errors=True)
            os.rename(target, aside)
        try:
            os.rename(part, target)
            break
        except OSError as error:
            recover(target)
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or attempt == ATTEMPTS:
                raise
    shutil.rmtree(aside, ignore_errors=True)
    _sync(target.parent)


def _settle(folder: Path) -> None:
    """Give files the permissions that the folder got from the umask, and flush all to the disk."""
    mode = folder.stat().st_mode & 0o666  # safetensors makes files private
    for path in (*folder.rglob("*"), folder):
        if path.is_file():
            path.chmod(mode)
        _sync(path)


def _sync(path: Path) -> None:
    if path.is_dir():
        with suppress(OSError):  # not every file system flushes folders
            _flush(path, os.O_RDONLY)
    else:
        _flush(path, os.O_RDWR)


def _flush(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sweep(target: Path) -> None:
    """Remove what processes that died long ago left unfinished."""
    for entry in _parts(target):
        with suppress(OSError):
            if time.time() - entry.stat().st_mtime > ABANDONED:
                shutil.rmtree(entry, ignore_errors=True)


def _unwritable(got: str) -> DataError:
    return DataError(
        "the output folder cannot be written", got=got, fix="name a folder that you may write to"
    )


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
