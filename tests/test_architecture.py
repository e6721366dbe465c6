"""The direction of imports of docs/architecture.md, and the size and the names of files.

Only source text is read, never an imported module: an import inside a function counts as well.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("mmalign", "configs", "encoders", "trainers")
MAX_LINES = 400

BASE = {"errors", "interfaces", "config"}
CORE = {*BASE, "ranking", "data", "features", "graph", "objectives", "models"}
EVALUATION = {"evaluation", "evaluation.metrics"}
COMPOSED = {
    *CORE,
    *EVALUATION,
    "atomic",
    "progress",
    "recommender",
    "experiment",
    "finetuning",
    "encoders",
    "encoders.tuning",
    "trainers",
    "configs",
}

# A room, by the longest prefix of the module's name under mmalign, and the rooms it may import
# besides itself. A module that falls in no room fails the test: give it one here and in the docs.
MAY_IMPORT: dict[str, set[str]] = {
    "": {*CORE, *EVALUATION, "recommender", "cli"},  # mmalign/__init__.py, on demand only
    "__main__": {"cli"},
    "errors": set(),
    "interfaces": set(),
    "config": {"errors"},
    "configs": set(),
    "atomic": BASE,
    "progress": set(),
    "pictures": BASE,
    "ranking": BASE,
    "objectives": BASE,
    "data": BASE,
    "features": {*BASE, "progress", "data"},
    "graph": {*BASE, "data"},
    "models": {*BASE, "ranking", "data", "features", "graph", "objectives"},
    "evaluation": {*BASE, "progress", "pictures", "ranking", "data", "evaluation.metrics"},
    "evaluation.metrics": BASE,
    "recommender": {*CORE, "atomic", "progress", "experiment"},
    "serve": {*CORE, "recommender"},
    "encoders": {*BASE, "pictures"},
    "encoders.tuning": {*BASE, "atomic", "encoders"},
    "experiment": {*CORE, "finetuning"},
    "finetuning": {"errors"},
    "trainers": {*CORE, *EVALUATION, "recommender", "experiment", "finetuning"},
    "benchmark": {*CORE, *EVALUATION, "atomic", "recommender", "experiment", "trainers"},
    "demo": COMPOSED,
    "doctor": COMPOSED,
    "cli": {*COMPOSED, "benchmark", "serve", "demo", "doctor"},
}

# Heavy libraries, and the rooms that may import them: at the top of a file, or only inside a
# function. So an artefact is loaded and recommends without them.
AT_TOP: dict[str, set[str]] = {
    "lightning": {"trainers", "benchmark"},
    "pytorch_lightning": set(),
    "jsonargparse": {"trainers"},
    "tensorboard": {"trainers"},
    "optuna": set(),
    "matplotlib": set(),
    "transformers": set(),
    "open_clip": set(),
    "timm": set(),
    "peft": set(),
    "datasets": set(),
    "huggingface_hub": set(),
    "fastapi": {"serve"},
    "uvicorn": {"serve"},
}
INSIDE_FUNCTIONS: dict[str, set[str]] = {
    "lightning": {"cli", "doctor"},
    "jsonargparse": {"cli"},
    "optuna": {"benchmark"},
    "matplotlib": {"benchmark"},
    "transformers": {"encoders", "doctor"},
    "open_clip": {"encoders", "doctor"},
    "timm": {"encoders", "encoders.tuning", "doctor"},
    "peft": {"encoders", "encoders.tuning"},
    "datasets": {"data"},
    "huggingface_hub": {"data", "encoders", "recommender"},
}


@dataclass(frozen=True)
class Import:
    """One import of one module, or of a name in one."""

    target: str
    line: int
    at_top: bool


def module_name(path: Path) -> str:
    """Name by which a file is imported: encoders/text.py is mmalign.encoders.text."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[0] != "mmalign":
        parts.insert(0, "mmalign")
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str | None:
    """The longest row of the table that holds a module; None when there is none."""
    name = module.removeprefix("mmalign").removeprefix(".")
    while name not in MAY_IMPORT:
        if "." not in name:
            return None
        name = name.rpartition(".")[0]
    return name


def imports(tree: ast.Module, module: str, *, is_package: bool) -> list[Import]:
    """All imports of a module, with relative ones resolved, whatever block they stand in."""
    package = module if is_package else module.rpartition(".")[0]
    found: list[Import] = []

    def visit(node: ast.AST, at_top: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, node.lineno, at_top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                base = ".".join([*parents[: len(parents) - node.level + 1], *filter(None, [base])])
            found.extend(Import(f"{base}.{a.name}", node.lineno, at_top) for a in node.names)
        elif isinstance(node, ast.Call) and node.args:
            # importlib.import_module("x") and our own require("x", ...) import as well.
            function, first = ast.unparse(node.func).rpartition(".")[2], node.args[0]
            if function in {"import_module", "require"} and isinstance(first, ast.Constant):
                found.append(Import(str(first.value), node.lineno, at_top))
        if isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'":
            return  # run as a script, a module is a composition root like cli
        for child in ast.iter_child_nodes(node):
            inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            # Under TYPE_CHECKING nothing is loaded, but the direction still counts.
            typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            visit(child, at_top and not inside and not typing_only)

    visit(tree, True)
    return found


def wrong_imports(tree: ast.Module, module: str, *, is_package: bool = False) -> list[str]:
    """Imports that go against the table, one line each."""
    room = room_of(module)
    if room is None:
        return [f"{module} is in no room: add it to MAY_IMPORT and to docs/architecture.md"]
    wrong = []
    for found in imports(tree, module, is_package=is_package):
        library = found.target.partition(".")[0]
        if library == "mmalign":
            target = room_of(found.target)
            if found.target == "mmalign.__version__" or target == room:
                continue
            if target is None or target not in MAY_IMPORT[room] - {""}:
                wrong.append(f"{module}:{found.line} may not import {found.target}")
        elif library in FOLDERS or library == "tests":
            wrong.append(f"{module}:{found.line} imports {library} by its folder's name")
        elif library in AT_TOP:
            inside = not found.at_top and room in INSIDE_FUNCTIONS.get(library, set())
            if room not in AT_TOP[library] and not inside:
                where = "at the top" if found.at_top else "in a function"
                wrong.append(f"{module}:{found.line} may not import {library} {where}")
    return wrong


# Links are not followed, so that mmalign/encoders is read once, as encoders/.
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
each_file = pytest.mark.parametrize("path", SOURCES, ids=[module_name(p) for p in SOURCES])


@each_file
def test_imports_go_one_way(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not wrong_imports(tree, module_name(path), is_package=path.name == "__init__.py")


@each_file
def test_a_file_holds_one_idea(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_LINES, f"{lines} lines: split it at {MAX_LINES}"
    assert path.stem not in {"utils", "util", "helpers", "common", "misc"}, "name it for its idea"


def test_modules_form_no_cycle() -> None:
    """Of the imports that run on loading; the table alone allows a circle inside one room."""
    names = {module_name(path) for path in SOURCES}
    edges: dict[str, set[str]] = {}
    for path in SOURCES:
        tree, module = ast.parse(path.read_text(encoding="utf-8")), module_name(path)
        found = imports(tree, module, is_package=path.name == "__init__.py")
        targets = {
            i.target if i.target in names else i.target.rpartition(".")[0]
            for i in found
            if i.at_top
        }
        edges[module] = (targets & names) - {module}
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_the_table_is_sound() -> None:
    rooms = set(MAY_IMPORT)
    named = set().union(*MAY_IMPORT.values(), *AT_TOP.values(), *INSIDE_FUNCTIONS.values())
    assert named <= rooms
    TopologicalSorter({r: allowed - {r} for r, allowed in MAY_IMPORT.items()}).prepare()


def test_an_artefact_loads_without_the_heavy_libraries() -> None:
    heavy = {*AT_TOP, "sentence_transformers"}
    code = f"import sys, mmalign.recommender; print(*sorted({heavy} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []


def test_importing_mmalign_imports_nothing_else() -> None:
    code = "import sys, mmalign; print(*sorted({'numpy', 'pandas', 'torch'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []


@pytest.mark.parametrize("folder", ["configs", "encoders", "trainers"])
def test_a_root_folder_refuses_its_short_name(folder: str) -> None:
    code = f"import {folder}"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert ran.returncode == 1
    last = ran.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError")
    assert f"import mmalign.{folder}" in last
    code = f"import mmalign.{folder} as it; print(it.__name__)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert ran.stdout.strip() == f"mmalign.{folder}", ran.stderr


class TestTheReader:
    """The rules above fail on source that breaks them."""

    @pytest.mark.parametrize(
        ("module", "code"),
        [
            ("mmalign.data.catalog", "from mmalign.models.closed_form import Ease"),
            ("mmalign.data.catalog", "def f():\n    import mmalign.cli"),
            ("mmalign.data.catalog", "from .. import models"),
            ("mmalign.data.catalog", "from ..models.aligned import Aligned"),
            ("mmalign.data.catalog", "import datasets"),
            ("mmalign.data.catalog", "from mmalign import recommender"),
            ("mmalign.models.aligned", "def f():\n    import lightning as L"),
            ("mmalign.models.aligned", "def f():\n    return require('timm', 'timm')"),
            ("mmalign.encoders.text", "timm = importlib.import_module('timm')"),
            ("mmalign.recommender", "class A:\n    from transformers import AutoModel"),
            ("mmalign.encoders.text", "from mmalign.data.catalog import Catalog"),
            ("mmalign.encoders.text", "if True:\n    import transformers"),
            ("mmalign.trainers.fit", "from mmalign.encoders import presets"),
            ("mmalign.trainers.fit", "from encoders import presets"),
            ("mmalign.trainers.fit", "from mmalign.cli import main"),
            ("mmalign.experiment", "from mmalign.trainers.fit import fit"),
            ("mmalign.serve.app", "import mmalign.trainers.fit"),
            ("mmalign.evaluation.metrics", "from mmalign.data.catalog import Catalog"),
            ("mmalign.benchmark.tuning", "import optuna"),
            ("mmalign.benchmark.runs", "from mmalign.encoders import load_encoder"),
            ("mmalign.trainers.fit", "from mmalign.benchmark.plan import Job"),
            ("mmalign.attic", ""),
        ],
    )
    def test_refuses(self, module: str, code: str) -> None:
        assert wrong_imports(ast.parse(code), module)

    @pytest.mark.parametrize(
        ("module", "code"),
        [
            ("mmalign.data.catalog", "def f():\n    import datasets"),
            ("mmalign.data.catalog", "from mmalign.data.splits import leave_last"),
            ("mmalign.data.catalog", "from mmalign import __version__"),
            ("mmalign.encoders.text", "def f():\n    from transformers import AutoModel"),
            ("mmalign.encoders.text", "from mmalign.errors import EncoderError"),
            ("mmalign.trainers.fit", "import lightning as L"),
            (
                "mmalign.trainers.fit",
                "if __name__ == '__main__':\n    from mmalign.cli import main",
            ),
            ("mmalign.evaluation.protocol", "from .metrics import ndcg"),
            ("mmalign.cli", "from mmalign.demo.shop import make_shop"),
        ],
    )
    def test_accepts(self, module: str, code: str) -> None:
        assert not wrong_imports(ast.parse(code), module)

    def test_names_modules_as_they_are_imported(self) -> None:
        assert module_name(ROOT / "encoders" / "text.py") == "mmalign.encoders.text"
        assert module_name(ROOT / "mmalign" / "data" / "__init__.py") == "mmalign.data"
        assert room_of("mmalign.evaluation.metrics.ndcg") == "evaluation.metrics"
        assert room_of("mmalign") == ""
