"""What is built and installed: packages, data files, dependencies, and the wheel by itself."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

import mmalign

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS: dict[str, Any] = PYPROJECT["tool"]["setuptools"]
FOLDERS = ("mmalign", "configs", "encoders", "trainers")

# Installed and used, but by a name that stands in a config or not at all.
USED_BY_NAME = {
    "tensorboard": "the logger of Lightning writes through it",
    "torchvision": "open_clip and timm transform images with it",
    "pyarrow": "pandas reads and writes Parquet with it",
}


def shipped_files() -> dict[str, Path]:
    """Name in the wheel to file in the tree, of everything in the four folders."""
    files = {}
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            inside = path.relative_to(ROOT)
            if path.is_file() and "__pycache__" not in inside.parts:
                name = inside.as_posix()
                files[name if folder == "mmalign" else f"mmalign/{name}"] = path
    return files


def requirement_name(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match, requirement
    return re.sub(r"[-_.]+", "-", match.group()).lower()


def imported_libraries() -> set[str]:
    """Top-level names that the source imports, whatever block the import stands in."""
    found: set[str] = set()
    for name, path in shipped_files().items():
        if name.endswith(".py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    found |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                    found.add(node.module.partition(".")[0])
                elif isinstance(node, ast.Call) and node.args:
                    function, first = ast.unparse(node.func).rpartition(".")[2], node.args[0]
                    if function in {"import_module", "require"} and isinstance(first, ast.Constant):
                        found.add(str(first.value).partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"mmalign"}


def test_every_folder_with_source_is_a_named_package() -> None:
    folders = {str(PurePosixPath(name).parent) for name in shipped_files() if name.endswith(".py")}
    assert {folder.replace("/", ".") for folder in folders} == set(SETUPTOOLS["packages"])


def test_every_package_has_an_init() -> None:
    files = shipped_files()
    for package in SETUPTOOLS["packages"]:
        assert f"{package.replace('.', '/')}/__init__.py" in files


def test_every_data_file_is_shipped() -> None:
    for name in shipped_files():
        path = PurePosixPath(name)
        if path.suffix != ".py":
            patterns = SETUPTOOLS["package-data"].get(str(path.parent).replace("/", "."), [])
            assert any(path.match(p) for p in patterns), f"{name} matches no package-data pattern"


def test_the_root_folders_are_linked() -> None:
    """So that type checkers, editors and pytest find what package-dir maps."""
    for folder in FOLDERS[1:]:
        link = ROOT / "mmalign" / folder
        assert link.is_symlink()
        assert os.readlink(link) == f"../{folder}"
        assert SETUPTOOLS["package-dir"][f"mmalign.{folder}"] == folder


def test_version_is_read_without_an_import() -> None:
    source = ast.parse((ROOT / "mmalign" / "__init__.py").read_text(encoding="utf-8"))
    values = [
        node.value.value
        for node in source.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
    ]
    assert values == [mmalign.__version__]
    assert f"## [{mmalign.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_dependencies_are_what_the_source_imports() -> None:
    extras = PYPROJECT["project"]["optional-dependencies"]
    required = {requirement_name(r) for r in PYPROJECT["project"]["dependencies"]}
    optional = {requirement_name(r) for e in extras if e != "dev" for r in extras[e]}
    distributions = packages_distributions()
    imported = {
        requirement_name(name)
        for library in imported_libraries()
        for name in distributions.get(library, [library])
        if name != "pytorch-lightning"  # a second distribution of parts of lightning
    }
    assert imported <= required | optional, "imported but not declared"
    assert required - imported <= set(USED_BY_NAME), "declared but never imported"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built the way a release is: from the sdist, which holds no links."""
    folder = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)], cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def empty_environment(wheel: Path) -> Iterator[Path]:
    """The folder of programs of a new virtual environment with the wheel and nothing else."""
    # Gigabytes, so removed at once and not left to pytest's retention of folders.
    with tempfile.TemporaryDirectory(prefix="mmalign-wheel-") as folder:
        run([sys.executable, "-m", "venv", folder], cwd=wheel.parent)
        programs = Path(folder) / ("Scripts" if os.name == "nt" else "bin")
        # Most modules of the libraries are never imported here, so none is compiled ahead.
        pip = [str(programs / "python"), "-m", "pip", "install", "--quiet", "--no-compile"]
        run([*pip, f"{wheel}[offline]"], cwd=wheel.parent)
        yield programs


def run(command: list[str], *, cwd: Path, timeout: int = 900) -> str:
    """Run to success in a folder away from the checkout, or fail with what was printed."""
    hidden = {"PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME", "PIP_NO_INDEX"}
    ran = subprocess.run(
        command,
        cwd=cwd,
        env={k: v for k, v in os.environ.items() if k not in hidden},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )
    assert ran.returncode == 0, f"{' '.join(command)}\n{ran.stdout[-4000:]}"
    return ran.stdout


@pytest.mark.slow
@pytest.mark.timeout(1200)
class TestWheel:
    def test_holds_the_whole_tree(self, wheel: Path) -> None:
        with zipfile.ZipFile(wheel) as archive:
            names = {n for n in archive.namelist() if ".dist-info/" not in n}
            metadata = [n for n in archive.namelist() if n.endswith("licenses/LICENSE")]
        assert names == set(shipped_files())
        assert metadata

    def test_every_module_imports(self, empty_environment: Path, tmp_path: Path) -> None:
        code = (
            "import importlib, pkgutil, mmalign\n"
            "assert 'site-packages' in mmalign.__file__, mmalign.__file__\n"
            "names = [m.name for m in pkgutil.walk_packages(mmalign.__path__, 'mmalign.')]\n"
            "for name in names: importlib.import_module(name)\n"
            "print(*names)"
        )
        out = run([str(empty_environment / "python"), "-c", code], cwd=tmp_path)
        modules = {
            name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            for name in shipped_files()
            if name.endswith(".py")
        }
        assert set(out.splitlines()[-1].split()) | {"mmalign"} >= modules

    @pytest.mark.parametrize("command", ["--help", "doctor"])
    def test_the_command_runs(self, empty_environment: Path, tmp_path: Path, command: str) -> None:
        assert "mmalign" in run([str(empty_environment / "mmalign"), command], cwd=tmp_path)

    def test_the_demo_goes_the_whole_way(self, empty_environment: Path, tmp_path: Path) -> None:
        run([str(empty_environment / "mmalign"), "demo"], cwd=tmp_path)
        assert list(tmp_path.rglob("*.html"))
