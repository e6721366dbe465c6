from __future__ import annotations

import dataclasses
import subprocess
import sys
import warnings

import pytest

from mmalign import __version__
from mmalign.cli import main
from mmalign.cli.main import COMMANDS, SECTIONS
from mmalign.errors import ConfigError
from mmalign.experiment import ExperimentConfig

MODULE = sys.modules["mmalign.cli.main"]  # the package has a function of that name
THERE = [name for name in COMMANDS if name != "demo"]
"""The demo has tests of its own."""


@pytest.mark.parametrize("name", THERE)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_every_command_has_help_with_an_example(name, flag, capsys):
    try:
        code = main([name, flag])
    except SystemExit as stop:
        code = stop.code
    shown = capsys.readouterr()
    assert code in (0, None)
    assert "example:" in shown.out
    assert f"mmalign {name}" in shown.out
    assert shown.err == ""


def test_usage_lists_every_command(mmalign):
    for arguments, code in (([], 2), (["--help"], 0), (["-h"], 0)):
        shown = mmalign(*arguments)
        assert shown.code == code
        assert all(f"  {name} " in shown.out + shown.err for name in COMMANDS)
    assert mmalign("--version").out == f"mmalign {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["recomend", "ART"], "unknown command 'recomend': did you mean 'recommend'"),
        (["validate", "--strct"], "unknown option '--strct': did you mean '--strict'"),
        (["validate", "--data.pth", "x"], "unknown key 'data.pth': did you mean 'path'"),
        (["validate", "--encoder.text", "x"], "unknown key 'encoder': did you mean 'encoders'"),
        (["validate", "--seed"], "option --seed has no value"),
        (["validate", "--seed", "-1"], "seed must be a number from 0"),
        (["validate", "--data.path", ""], "data.path is empty"),
        (["validate", "--cache", ""], "cache is empty"),
        (["validate", "--trainer.max_epoch", "2"], "unknown key 'trainer.max_epoch': did you mea"),
        (["fit", "--output"], "option --output has no value"),
        (["validate", "--config", "nowhere.yaml"], "config file not found (got 'nowhere.yaml')"),
        (["validate"], "data.path is not set"),
        (["evaluate"], "the following arguments are required: ART"),
        (["add-items", "ART", "x.csv"], "the following arguments are required: --output"),
        (["audience", "ART"], "the following arguments are required: --items"),
        (["doctor", "--data.path", "x"], "this command reads no config"),
        (["explain", "ART", "i1", "--seed", "1"], "this command reads no config"),
    ],
)
def test_bad_usage_is_one_line_and_exits_2(mmalign, arguments, message):
    shown = mmalign(*arguments)
    assert shown.code == 2
    assert message in shown.error
    assert len(shown.err.splitlines()) == 1


def test_the_sections_of_the_config_are_known_without_importing_it():
    assert set(SECTIONS) == {field.name for field in dataclasses.fields(ExperimentConfig)}


def test_sections_can_be_given_whole(mmalign, house):
    shown = mmalign("validate", "--data", f"{{path: {house.shop}}}", "--encoders", "{text: x}")
    assert shown.code == 0, shown.err


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (KeyboardInterrupt(), "mmalign: error: interrupted"),
        (OSError(28, "No space left on device"), "mmalign: error: the system refused: [Errno 28]"),
        (MemoryError("8 GiB for an array"), "mmalign: error: not enough memory (8 GiB for an"),
        (MemoryError(), "mmalign: error: not enough memory: use smaller batches"),
    ],
)
def test_what_the_system_does_is_one_line(mmalign, monkeypatch, error, line):
    def fail(*_):
        raise error

    monkeypatch.setattr(MODULE, "_run", fail)
    shown = mmalign("validate")
    assert shown.code == 1
    assert shown.error.startswith(line)


def test_warnings_are_one_line_and_only_those_for_users(mmalign, monkeypatch):
    def warn(*_):
        warnings.warn("two\nlines", stacklevel=1)
        warnings.warn("a library is old", DeprecationWarning, stacklevel=1)
        return 0

    before = warnings.showwarning
    monkeypatch.setattr(MODULE, "_run", warn)
    assert mmalign("validate").err == "mmalign: warning: two lines\n"
    assert warnings.showwarning is before


def test_a_further_process_says_which_it_is(mmalign, monkeypatch):
    def fail(*_):
        warnings.warn("look", stacklevel=1)
        raise ConfigError("no")

    monkeypatch.setattr(MODULE, "_run", fail)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert mmalign("fit").err == (
        "mmalign: warning: process 1: look\nmmalign: error: process 1: no\n"
    )
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert mmalign("fit").err.splitlines()[-1] == "mmalign: error: no"


def test_every_command_keeps_freed_memory(mmalign, house, monkeypatch):
    told = []
    monkeypatch.setattr(MODULE, "keep_freed_memory", lambda: told.append(True))
    assert mmalign("--version").code == 0
    assert told == []
    assert mmalign("explain", house.art, "i1").code == 0
    assert told == [True]


def test_nothing_heavy_is_imported_to_rank_or_to_add_cached_items(house, items, tmp_path):
    """And a reader that has enough of the output, such as head, is no error."""
    table = tmp_path / "again.csv"
    items.head(20).assign(item_id=[f"again {n}" for n in range(20)]).to_csv(table, index=False)
    add = ["add-items", house.art, table, "--data.path", house.shop, "--output", tmp_path / "added"]
    code = (
        "import contextlib, io, sys\n"
        "from mmalign.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        f"    assert main(['evaluate', {str(house.art)!r}]) == 0\n"
        f"    assert main(['recommend', {str(house.art)!r}, '--split', 'test']) == 0\n"
        f"assert main({[str(word) for word in add]}) == 0\n"
        "heavy = {'lightning', 'transformers', 'timm', 'open_clip', 'jsonargparse', 'datasets',\n"
        "         'sklearn', 'torch_geometric', 'huggingface_hub.hf_api'}\n"
        "print(sorted(heavy & set(sys.modules)), flush=True)\n"
        f"sys.exit(main(['recommend', {str(house.art)!r}, '-k', '40', '--json']))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as ran:
        assert ran.stdout is not None
        assert ran.stderr is not None
        assert ran.stdout.readline() == "[]\n"
        ran.stdout.close()
        assert "Traceback" not in (errors := ran.stderr.read())
        assert "BrokenPipe" not in errors
    assert ran.returncode == 1


def test_the_module_runs_as_a_program():
    ran = subprocess.run(
        [sys.executable, "-m", "mmalign.cli", "nonsense"], capture_output=True, text=True
    )
    assert ran.returncode == 2
    assert ran.stderr.startswith("mmalign: error: unknown command 'nonsense'")


def test_an_option_without_value_is_seen_before_the_heavy_imports():
    code = (
        "import sys; from mmalign.cli.main import main; code = main(['fit', '--output']); "
        "print(code, *sorted({'torch', 'lightning', 'pandas'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["2"]


def test_the_package_is_a_program():
    ran = subprocess.run(
        [sys.executable, "-m", "mmalign", "--version"], capture_output=True, text=True, check=True
    )
    assert ran.stdout == f"mmalign {__version__}\n"


def test_trainer_keys_that_are_known_without_lightning_are_keys_of_its_trainer():
    from mmalign.cli.setup import COMMON_TRAINER_KEYS
    from mmalign.trainers.options import TRAINER_DEFAULTS, check_trainer

    check_trainer(dict.fromkeys(COMMON_TRAINER_KEYS))
    assert TRAINER_DEFAULTS.keys() <= COMMON_TRAINER_KEYS
