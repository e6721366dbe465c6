"""A folder is there as it was or as it should be, whenever the process dies."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mmalign import atomic
from mmalign.atomic import check_writable, recover, whole_folder
from mmalign.errors import DataError

OLD, NEW = {"a": "old", "b": "old"}, {"a": "new", "b": "new"}


def write(target: Path, files: dict[str, str], own: tuple[str, ...] | None = None) -> None:
    with whole_folder(target, own) as folder:
        for name, text in files.items():
            (folder / name).write_text(text)


def read(target: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in target.iterdir()}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A folder that is there already."""
    write(tmp_path / "art", OLD)
    return tmp_path / "art"


def test_writes_and_replaces(target: Path) -> None:
    assert read(target) == OLD
    write(target, {"c": "new"})
    assert read(target) == {"c": "new"}
    assert os.listdir(target.parent) == ["art"]  # nothing is left beside it


def test_makes_parents(tmp_path: Path) -> None:
    write(tmp_path / "x" / "y" / "art", NEW)
    assert read(tmp_path / "x" / "y" / "art") == NEW


def test_an_error_of_the_writer_leaves_the_old_folder(target: Path) -> None:
    with pytest.raises(TypeError, match="must be str"):
        write(target, {"a": "half", "b": None})  # type: ignore[dict-item]
    assert read(target) == OLD
    assert os.listdir(target.parent) == ["art"]


def test_an_interrupt_leaves_the_old_folder(target: Path) -> None:
    with pytest.raises(KeyboardInterrupt), whole_folder(target):
        raise KeyboardInterrupt
    assert read(target) == OLD
    assert os.listdir(target.parent) == ["art"]


@pytest.mark.parametrize("call", ["rename", "fsync", "mkdir"])
def test_a_full_disk_leaves_the_old_folder(
    target: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    real_mkdir = Path.mkdir
    with monkeypatch.context() as patch:
        if call == "mkdir":
            patch.setattr(
                Path,
                "mkdir",
                lambda p, *a, **k: full() if "writing" in p.name else real_mkdir(p, *a, **k),
            )
        else:
            patch.setattr(os, call, full)
        with pytest.raises(DataError, match="No space left on device") as caught:
            write(target, NEW)
    assert "\n" not in str(caught.value)
    assert read(target) == OLD
    assert os.listdir(target.parent) == ["art"]


def test_a_second_rename_that_fails_puts_the_old_folder_back(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = os.rename, []

    def rename(source: Path, goal: Path) -> None:
        calls.append(goal)
        if len(calls) == 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(source, goal)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(DataError, match="Input/output error"):
        write(target, NEW)
    assert read(target) == OLD


def test_a_full_disk_in_fact(tmp_path: Path) -> None:
    """The kernel refuses to write on, as it does when nothing is left."""
    code = f"""
import resource, sys
from pathlib import Path
from mmalign.atomic import whole_folder
from mmalign.errors import DataError
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with whole_folder(Path({str(tmp_path / "art")!r})) as folder:
        (folder / "big").write_bytes(bytes(10_000))
except DataError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "could not write" in ran.stdout
    assert os.listdir(tmp_path) == []


KILL = """
import os, signal, sys
from pathlib import Path
from mmalign import atomic
call, number = sys.argv[2], int(sys.argv[3])
real, seen = getattr(os, call), []
def die(*a, **k):
    seen.append(a)
    if len(seen) == number:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*a, **k)
setattr(os, call, die)
with atomic.whole_folder(Path(sys.argv[1])) as folder:
    for name in "ab":
        (folder / name).write_text("new")
"""


@pytest.mark.parametrize(
    ("call", "number", "expected"),
    [
        ("fsync", 1, OLD),  # while the files are flushed
        ("rename", 1, OLD),  # before the old folder is moved aside
        ("rename", 2, OLD),  # between the two renames
        ("fsync", 4, NEW),  # after them: two files, the folder, then its parent
    ],
)
def test_a_kill_leaves_one_of_the_two_folders_whole(
    target: Path, call: str, number: int, expected: dict[str, str]
) -> None:
    command = [sys.executable, "-c", KILL, str(target), call, str(number)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    recover(target)
    assert read(target) == expected
    write(target, {"c": "next"})  # what was left behind is not in the way
    assert read(target) == {"c": "next"}


def test_what_was_left_long_ago_is_swept_away(target: Path) -> None:
    left = [target.with_name(f".art.writing-{name}") for name in ("new", "old")]
    for folder in left:
        folder.mkdir()
        (folder / "a").write_text("half")
    os.utime(left[1], (0, 0))
    write(target, NEW)
    assert left[0].exists()  # somebody may be writing it now
    assert not left[1].exists()


def test_what_a_kill_left_aside_does_not_come_back(target: Path) -> None:
    """Killed after both renames; then somebody moves the new folder elsewhere."""
    code = KILL.replace("os, call", "atomic.shutil, call")
    # The first clears the place aside, the second what was put there.
    command = [sys.executable, "-c", code, str(target), "rmtree", "2"]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert target.with_name(".art.old").is_dir()
    target.rename(target.with_name("moved"))
    recover(target)
    assert not target.exists()


def test_a_reader_who_puts_the_old_folder_back_costs_the_writer_nothing(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = os.rename, []

    def rename(source: Path, goal: Path) -> None:
        calls.append(goal)
        if len(calls) == 2:  # the new folder is about to take the place
            recover(target)
        real(source, goal)

    monkeypatch.setattr(os, "rename", rename)
    write(target, NEW)
    assert len(calls) == 5
    assert read(target) == NEW
    assert os.listdir(target.parent) == ["art"]


def test_recover_leaves_a_whole_folder_alone(target: Path) -> None:
    aside = target.with_name(".art.old")
    aside.mkdir()
    recover(target)
    assert read(target) == OLD
    recover(target.with_name("never"))
    assert not target.with_name("never").exists()


def test_a_link_stays_a_link(target: Path) -> None:
    link = target.with_name("link")
    link.symlink_to(target)
    for files in (NEW, {"c": "again"}):
        write(link, files)
        assert link.is_symlink()
        assert read(target) == files


def test_threads_that_write_the_same_folder_do_not_mix(target: Path) -> None:
    def work(text: str) -> None:
        for _ in range(20):
            try:
                write(target, {"a": text, "b": text})
            except DataError:  # the other one was quicker
                continue

    threads = [threading.Thread(target=work, args=(text,)) for text in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    recover(target)
    assert read(target) in ({"a": "one", "b": "one"}, {"a": "two", "b": "two"})


@pytest.mark.parametrize(
    ("umask", "file", "folder"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700)]
)
def test_permissions_follow_the_umask(tmp_path: Path, umask: int, file: int, folder: int) -> None:
    before = os.umask(umask)
    try:
        with whole_folder(tmp_path / "art") as part:
            (part / "a").touch(mode=0o600)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "art" / "a").stat().st_mode) == file
    assert stat.S_IMODE((tmp_path / "art").stat().st_mode) == folder


class TestCheckWritable:
    """Each refusal comes before any work, and again when the folder is written."""

    def refused(self, target: Path, problem: str, own: tuple[str, ...] | None = None) -> None:
        with pytest.raises(DataError, match=problem) as caught:
            check_writable(target, own)
        assert "\n" not in str(caught.value)
        with pytest.raises(DataError, match=problem):
            write(target, NEW, own)

    def test_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "art").touch()
        self.refused(tmp_path / "art", "the output is a file")
        self.refused(tmp_path / "art" / "below", "cannot be written")

    def test_a_parent_without_permission(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
        self.refused(tmp_path / "art", "the output folder cannot be written")
        self.refused(tmp_path / "x" / "y", "the output folder cannot be written")

    def test_permission_that_only_shows_on_writing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        monkeypatch.setattr(os, "mkdir", refuse)
        with pytest.raises(DataError, match=r"cannot be written .*Permission denied"):
            write(tmp_path / "art", NEW)

    def test_a_mount_point(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refused(Path("/"), "mount point")
        monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == tmp_path)
        self.refused(tmp_path, "mount point")

    def test_a_folder_with_other_files(self, target: Path) -> None:
        check_writable(target, ("a", "b"))
        self.refused(target, "holds other files, which would be lost .got 'b'", ("a",))
        assert read(target) == OLD
        write(target, NEW, ("a", "b"))
        assert read(target) == NEW

    def test_an_empty_folder_and_none(self, tmp_path: Path) -> None:
        check_writable(tmp_path / "x" / "art", ())
        write(tmp_path, NEW, ())
        assert read(tmp_path) == NEW


def test_an_abandoned_folder_is_older_than_any_save() -> None:
    assert atomic.ABANDONED >= 3600
