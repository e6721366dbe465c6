from __future__ import annotations

import datetime
import subprocess
import sys

import numpy as np
import pytest

from mmalign.benchmark import environment, extras, memory
from mmalign.errors import MissingDependencyError


def test_versions_and_hardware():
    found = environment.versions()
    assert found["numpy"] == np.__version__
    assert {"mmalign", "python", "torch"} <= set(found)
    assert int(environment.hardware()["cores"]) >= 1


def test_outside_of_git_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "_HERE", tmp_path / "file.py")
    assert environment.commit() == ""


def test_the_commit_says_when_files_differ(tmp_path, monkeypatch):
    def git(*arguments):
        line = ["git", "-c", "user.name=x", "-c", "user.email=x@x", *arguments]
        return subprocess.run(line, cwd=tmp_path, check=True, capture_output=True, text=True)

    git("init")
    (tmp_path / "file.py").write_text("1")
    monkeypatch.setattr(environment, "_HERE", tmp_path / "file.py")
    assert environment.commit() == ""  # somebody else's repository
    git("add", ".")
    git("commit", "-m", "x")
    head = git("rev-parse", "--short", "HEAD").stdout.strip()
    assert environment.commit() == head
    (tmp_path / "file.py").write_text("2")
    assert environment.commit() == f"{head}+changes"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_peak_is_the_programs_own():
    """A child of a large process starts small, and its peak is what it took."""
    large = np.ones(2**28 // 8)  # 256 MB here, that a child must not count
    code = (
        "from mmalign.benchmark.memory import peak_memory, present_memory\n"
        "before = peak_memory(); x = bytearray(10**8); after = peak_memory(); del x\n"
        "print(before, after, present_memory())"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after, present = map(int, ran.stdout.split())
    assert before < large.nbytes
    assert 0.9e8 < after - before < 1.2e8
    assert present < after


def test_without_proc_there_is_another_way(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "none")
    assert memory.peak_memory() > 10**7


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "optuna" else 1)
    with pytest.raises(MissingDependencyError, match=r"optuna: pip install 'mmalign\[benchmark\]'"):
        extras.require_extras()
    monkeypatch.setattr(extras, "find_spec", lambda name: 1)
    extras.require_extras()


def test_provenance_is_a_line_with_commit_date_and_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "commit", lambda: "abc1234+changes")
    found = {"system": "Linux x86_64", "cores": "2", "threads": "1"}
    monkeypatch.setattr(environment, "hardware", lambda: found)
    today = datetime.date.today()
    line = f"commit abc1234+changes, {today}, Linux x86_64, 2 cores, 1 threads, no GPU"
    assert environment.provenance() == line
    found["gpu"] = "H100"
    assert environment.provenance().endswith("1 threads, H100")
