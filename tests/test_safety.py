"""Nothing in the source runs code out of data: no pickle, no eval, no remote code.

Only source text is read, so a call counts wherever it stands.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("mmalign", "configs", "encoders", "trainers")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))

PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
"""Modules whose files run code when they are read."""

BANNED = {
    "eval": "runs code",
    "exec": "runs code",
    "compile": "runs code",
    "__import__": "hides an import",
    "torch.save": "writes a pickle: use safetensors",
    "yaml.load": "builds objects: use yaml.safe_load",
    "read_pickle": "runs code",
    "to_pickle": "writes a pickle",
}

MUST_SAY = {
    "torch.load": ("weights_only", "True"),
    "load_from_checkpoint": ("weights_only", "True"),
    "np.load": ("allow_pickle", "False"),
    "numpy.load": ("allow_pickle", "False"),
}
"""Calls that are safe only with this argument written out."""


def unsafe_lines(code: str) -> list[str]:
    """Imports and calls that can run code out of data, one line each."""
    wrong = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            imported = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imported = [node.module or ""]
        else:
            imported = []
        wrong += [
            f"imports {name}, whose files run code"
            for name in imported
            if name.partition(".")[0] in PICKLES
        ]
        if isinstance(node, ast.Call):
            wrong += [f"line {node.lineno}: {reason}" for reason in _unsafe_call(node)]
    return wrong


def _unsafe_call(call: ast.Call) -> list[str]:
    name = ast.unparse(call.func)
    method = name.rpartition(".")[2]
    given = {k.arg: ast.unparse(k.value) for k in call.keywords}
    wrong = []
    # re.compile is no compile, and module.eval() no eval: bare names are matched whole.
    banned = name if name in BANNED else method if method.endswith("_pickle") else ""
    if banned in BANNED:
        wrong.append(f"{name} {BANNED[banned]}")
    if method == "eval" and name != "eval" and (call.args or call.keywords):
        wrong.append(f"{name} runs an expression")  # a data frame's; a network's takes no argument
    argument, value = MUST_SAY.get(name) or MUST_SAY.get(method) or (None, None)
    if argument and given.get(argument) != value:
        wrong.append(f"{name} without {argument}={value}")
    if given.get("trust_remote_code", "False") != "False":
        wrong.append(f"{name} runs code of a model hub")
    return wrong


@pytest.mark.parametrize("path", SOURCES, ids=[p.relative_to(ROOT).as_posix() for p in SOURCES])
def test_nothing_runs_code_out_of_data(path: Path) -> None:
    assert not unsafe_lines(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "eval('1')",
        "exec('1')",
        "frame.eval('a > b')",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "Module.load_from_checkpoint(path)",
        "yaml.load(text)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "pd.read_pickle(path)",
        "torch.save(state, path)",
    ],
)
def test_finds_unsafe(code: str) -> None:
    assert unsafe_lines(code)


@pytest.mark.parametrize(
    "code",
    [
        "model.eval()",
        "torch.load(path, weights_only=True)",
        "np.load(path, mmap_mode='r', allow_pickle=False)",
        "yaml.safe_load(text)",
        "re.compile(pattern)",
    ],
)
def test_lets_safe_pass(code: str) -> None:
    assert not unsafe_lines(code)
