"""Every fenced code block of README.md and docs/ is run, in order, in a folder like a checkout.

============  ====================================================================================
``python``    executed; all blocks of the page share their names
``bash``      ``mmalign ...`` and ``python trainers/...`` are run; ``make`` targets must exist; what
              ``pip install`` names must be ours, with extras that exist; ``git clone`` and ``cd``
              are let pass; nothing else may stand there
``yaml``      must parse; with a first line ``# name.yaml`` it is saved under that name
``json``      must parse
``text``      is shown, not run; ``mermaid`` too
============  ====================================================================================

A block after the line ``<!-- test: data -->`` needs ``../shared/data`` and is run only where that
is, by a test marked slow. There is no other way to leave a block out.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NEEDS_DATA = "<!-- test: data -->"
SHOWN = {"text", "mermaid"}
RUN = ("mmalign ", "python trainers/")
SETTING_UP = ("git clone ", "cd ")
LINKED = ("configs", "trainers")
"""Folders of the checkout that a command in the README may name."""


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, its text, where it stands, and whether it needs data."""

    language: str
    code: str
    line: int
    needs_data: bool = False


class ReadmeError(AssertionError):
    """A block that is wrong or that nothing would run."""


def parse(markdown: str) -> list[Block]:
    """The fenced blocks of a page.

    Raises:
        ReadmeError: A fence without a language or without an end, or an unknown test comment.
    """
    blocks: list[Block] = []
    opening: re.Match[str] | None = None
    start, before, body = 0, "", list[str]()
    for number, line in enumerate(markdown.splitlines(), start=1):
        if opening is None:
            if opening := re.match(r"(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<language>\S*)", line):
                start, body = number, []
                if not opening["language"]:
                    raise ReadmeError(f"line {number}: name the language of the block, or text")
            elif line.startswith("<!-- test:") and line.strip() != NEEDS_DATA:
                raise ReadmeError(f"line {number}: only {NEEDS_DATA} is known (got {line!r})")
            elif line.strip():
                before = line.strip()
        elif line.strip() == opening["fence"]:
            code = "".join(text.removeprefix(opening["indent"]) + "\n" for text in body)
            blocks.append(Block(opening["language"], code, start, before == NEEDS_DATA))
            opening, before = None, ""
        else:
            body.append(line)
    if opening is not None:
        raise ReadmeError(f"line {start}: the block has no end")
    return blocks


def commands(code: str) -> list[str]:
    """The commands of a bash block: continued lines joined, comments and prompts left out."""
    joined = code.replace("\\\n", " ").replace(" && ", "\n")
    lines = (line.strip().removeprefix("$ ") for line in joined.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def check_command(command: str) -> None:
    """Check what can be checked without running it.

    Raises:
        ReadmeError: No such make target, no such extra, or a program that is not run here.
    """
    words = shlex.split(command, comments=True)
    if command.startswith(RUN + SETTING_UP):
        return
    if words[0] == "make":
        known = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text("utf-8"), re.M))
        targets = [word for word in words[1:] if "=" not in word]
        if not set(targets) <= known:
            raise ReadmeError(f"no such make target: {command}")
    elif words[:2] == ["pip", "install"]:
        for word in words[2:]:
            if not word.startswith("-"):
                _check_requirement(word)
    else:
        raise ReadmeError(f"nothing runs this command: {command}")


def _check_requirement(requirement: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pattern = r"(?P<name>[\w./-]+)(\[(?P<extras>[\w,\s-]+)\])?([=<>!~@ ].*)?"
    match = re.fullmatch(pattern, requirement)
    if match is None or not match["name"].startswith(("mmalign", ".")):
        raise ReadmeError(f"pip installs something that is not ours: {requirement}")
    extras = {extra.strip() for extra in (match["extras"] or "").split(",") if extra.strip()}
    if not extras <= set(project["optional-dependencies"]):
        raise ReadmeError(f"no such extra: {requirement}")


def run_page(blocks: list[Block], folder: Path, *, name: str = "README.md") -> dict[str, Any]:
    """Run blocks in order in a folder and return the names that the Python blocks left."""
    names: dict[str, Any] = {"__name__": "__readme__"}
    for block in blocks:
        if block.language == "python":
            # Padded, so that a traceback shows the line of the page.
            source = "\n" * block.line + block.code
            exec(compile(source, name, "exec", dont_inherit=True), names)
        elif block.language in {"bash", "sh", "shell"}:
            for command in commands(block.code):
                check_command(command)
                if command.startswith(RUN):
                    _run(command, folder, f"{name}:{block.line}")
        elif block.language == "yaml":
            yaml.safe_load(block.code)
            if title := re.match(r"#\s*([\w-]+\.yaml)\s*\n", block.code):
                (folder / title[1]).write_text(block.code, encoding="utf-8")
        elif block.language == "json":
            json.loads(block.code)
        elif block.language not in SHOWN:
            raise ReadmeError(f"{name}:{block.line}: nothing runs {block.language}")
    return names


def _run(command: str, folder: Path, where: str) -> None:
    programs = Path(sys.executable).parent  # where the mmalign of this interpreter is
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env={**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    if ran.returncode:
        raise ReadmeError(f"{where}: {command}\nexit {ran.returncode}\n{ran.stdout[-4000:]}")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with the folders that the README names: nothing real is changed."""
    folder = tmp_path / "mmalign"
    folder.mkdir()
    for linked in LINKED:
        (folder / linked).symlink_to(ROOT / linked)
    monkeypatch.chdir(folder)
    return folder


each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@each_page
def test_every_block_is_right(page: Path) -> None:
    for block in parse(page.read_text(encoding="utf-8")):
        if block.language == "bash":
            for command in commands(block.code):
                check_command(command)


@each_page
def test_every_block_runs(checkout: Path, page: Path) -> None:
    blocks = [block for block in parse(page.read_text(encoding="utf-8")) if not block.needs_data]
    run_page(blocks, checkout, name=page.name)


@each_page
def test_every_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    absent = [link for link in links if ":" not in link and not (page.parent / link).exists()]
    assert not absent


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.timeout(3600)
def test_every_block_runs_with_data(checkout: Path, shared_data: Path) -> None:
    (checkout.parent / "shared").symlink_to(shared_data.parent)
    run_page(parse(README.read_text(encoding="utf-8")), checkout)


class TestTheRunner:
    def test_runs_python_in_shared_names(self, checkout: Path) -> None:
        page = """
Text with `code`.

```python
first = 1
```

```text
not python at all (
```

1. In a list:

   ```python
   second = first + 1
   ```
"""
        assert run_page(parse(page), checkout)["second"] == 2

    def test_an_error_names_the_line_of_the_page(self, checkout: Path) -> None:
        page = "\n\n```python\na = 1\nb = a / 0\n```\n"
        with pytest.raises(ZeroDivisionError) as error:
            run_page(parse(page), checkout)
        assert error.traceback[-1].lineno == 4  # counted from 0: the fifth line

    def test_runs_commands_in_the_folder(
        self, checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        programs = tmp_path / "bin"
        programs.mkdir()
        fake = programs / "mmalign"
        fake.write_text('#!/bin/sh\n[ "$1" = fail ] && exit 3\necho "$@" >> said.txt\n')
        fake.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(programs / "python"))
        page = """
```yaml
# shop.yaml
seed: 1
```

```bash
pip install 'mmalign[offline]'
make demo   # sets everything up
# a comment
$ mmalign fit \\
    --config shop.yaml  # another
mmalign evaluate ART
```
"""
        run_page(parse(page), checkout)
        assert (checkout / "said.txt").read_text() == "fit --config shop.yaml\nevaluate ART\n"
        assert yaml.safe_load((checkout / "shop.yaml").read_text()) == {"seed": 1}
        with pytest.raises(ReadmeError, match="exit 3"):
            run_page(parse("```bash\nmmalign fail\n```"), checkout)

    def test_marks_blocks_that_need_data(self) -> None:
        page = f"{NEEDS_DATA}\n\n```bash\nmmalign a\n```\n\n```bash\nmmalign b\n```\n"
        assert [block.needs_data for block in parse(page)] == [True, False]

    @pytest.mark.parametrize(
        "page",
        [
            "```\ncode\n```",
            "```python\ncode",
            "<!-- test: skip because it is slow -->\n```python\n1\n```",
        ],
    )
    def test_refuses_to_leave_out(self, page: str) -> None:
        with pytest.raises(ReadmeError):
            parse(page)

    @pytest.mark.parametrize(
        "command",
        [
            "make nothing",
            "pip install 'mmalign[nothing]'",
            "pip install sklearn",
            "rm -rf /",
            "python fit.py",
        ],
    )
    def test_refuses_commands(self, command: str) -> None:
        with pytest.raises(ReadmeError):
            check_command(command)

    @pytest.mark.parametrize(
        "command",
        [
            "make demo test",
            "pip install -e '.[offline,dev]'",
            "git clone URL",
            "cd mmalign",
            "pip install mmalign>=0.1",
        ],
    )
    def test_lets_commands_pass(self, command: str) -> None:
        check_command(command)

    @pytest.mark.parametrize("block", ["yaml\na: [", "json\n{", "ruby\n1"])
    def test_refuses_broken_blocks(self, block: str, checkout: Path) -> None:
        with pytest.raises((ReadmeError, yaml.YAMLError, ValueError)):
            run_page(parse(f"```{block}\n```"), checkout)
