"""Folders that are written whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmalign.errors import DataError

__all__ = ["check_writable", "recover", "whole_folder"]


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Write a folder through a temporary sibling that takes its place at the end.

    Whenever the process dies, the old folder or the new one is there, whole:
    :func:`recover` puts the old one back if it died between the two renames.

    Raises:
        DataError: The parent folder cannot be written, or the target is a file.
    """
    target = target.absolute()
    if target.exists() and not target.is_dir():
        raise DataError("the output is a file", got=str(target), fix="name a folder")
    part = target.with_name(f".{target.name}.writing-{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        recover(target)
        part.mkdir()
    except OSError as error:
        raise DataError(
            "the output folder cannot be written",
            got=f"{target}: {error.strerror}",
            fix="name a folder that you may write to",
        ) from None
    try:
        yield part
        for file in part.rglob("*"):
            if file.is_file():
                file.chmod(0o666 & ~_umask())  # safetensors makes files private
                _sync(file)
        _swap(part, target)
    except OSError as error:
        raise DataError(
            f"could not write {target}", got=error.strerror, fix="free space or name another folder"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def recover(target: Path) -> None:
    """Put back the folder that a process moved aside and died before replacing."""
    aside = _aside(target)
    if aside.is_dir() and not target.exists():
        os.rename(aside, target)


def _aside(target: Path) -> Path:
    return target.absolute().with_name(f".{target.name}.old")


def _swap(part: Path, target: Path) -> None:
    aside = _aside(target)
    if target.exists():
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(target, aside)
    os.rename(part, target)
    shutil.rmtree(aside, ignore_errors=True)
    _sync(target.parent)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_writable(target: Path) -> None:
    """Fail before long work, not after it, if a folder could not be written at the end.

    Raises:
        DataError: The nearest existing parent cannot be written, or the target is a file.
    """
    target = target.absolute()
    if target.exists() and not target.is_dir():
        raise DataError("the output is a file", got=str(target), fix="name a folder")
    parent = next(p for p in target.parents if p.exists())
    if not os.access(parent, os.W_OK):
        raise DataError(
            "the output folder cannot be written",
            got=str(target),
            fix="name a folder that you may write to",
        )
