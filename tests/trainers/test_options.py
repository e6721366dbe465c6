from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from mmalign.data.config import AttributeConfig
from mmalign.errors import ConfigError
from mmalign.experiment import ExperimentConfig
from mmalign.trainers.options import (
    FINETUNE_DEFAULTS,
    TRAINER_DEFAULTS,
    check_plain,
    check_trainer,
    parse_fit,
)


@pytest.fixture
def files(tmp_path):
    first = {
        "seed": 1,
        "data": {"path": "a", "attributes": {"year": {"kind": "number", "column": "title"}}},
        "trainer": {"max_epochs": 7},
    }
    second = {"seed": 2, "data": {"attributes": {"year": {"width": 9}}}, "encoders": {"text": "b"}}
    for name, values in {"first": first, "second": second}.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(values))
    return [str(tmp_path / f"{name}.yaml") for name in ("first", "second")]


def parsed(*arguments):
    options = parse_fit(["--output", "art", *arguments])
    assert options is not None
    return options


def test_without_options_all_is_at_its_default():
    options = parsed()
    assert (options.config, options.output, options.ckpt_path) == (ExperimentConfig(), "art", None)


def test_later_files_lie_over_earlier_ones_and_the_command_line_over_all(files):
    first, second = files
    config = parsed("--config", first, f"--config={second}", "--data.path", "c").config
    assert config.seed == 2
    assert config.data.path == "c"
    assert config.data.attributes == {"year": AttributeConfig("number", "title", width=9.0)}
    assert config.encoders == {"text": "b"}
    assert config.trainer == {"max_epochs": 7}
    assert parsed("--seed", "3", "--config", first).config.seed == 3
    assert parsed("--config", second, "--config", first).config.seed == 1


def test_values_are_read_as_yaml():
    config = parsed(
        "--data.text",
        "[a, b]",
        "--data.attributes.year.kind",
        "number",
        "--encoders={text: minilm}",
        "--data.users=null",
        "--data.positive",
        "rating >= 3.5",
        "--model.aligned.learning_rate",
        "1e-3",
        "--evaluation.ks=[5]",
        "--seed=3",
    ).config
    assert config.data.text == ("a", "b")
    assert config.data.attributes["year"].kind == "number"
    assert config.encoders == {"text": "minilm"}
    assert config.data.users is None
    assert config.data.positive == "rating >= 3.5"
    assert config.model.aligned.learning_rate == 0.001
    assert config.evaluation.ks == (5,)
    assert config.seed == 3


def test_trainer_options_keep_their_types_and_only_what_differs():
    arguments = ["--trainer.max_epochs", "5", "--trainer.devices=2", "--trainer.strategy", "ddp"]
    assert parsed(*arguments, "--trainer.gradient_clip_val", "1e-1").config.trainer == {
        "max_epochs": 5,
        "devices": 2,
        "strategy": "ddp",
        "gradient_clip_val": 0.1,
    }


@pytest.mark.parametrize(("name", "lightnings"), [("check_val_every_n_epoch", 1)])
def test_lightnings_own_default_can_be_asked_for_where_ours_is_another(name, lightnings):
    assert TRAINER_DEFAULTS[name] != lightnings
    assert parsed(f"--trainer.{name}", str(lightnings)).config.trainer == {name: lightnings}
    assert parsed(f"--trainer.{name}", str(TRAINER_DEFAULTS[name])).config.trainer == {}


def test_tuning_has_defaults_of_its_own(capsys):
    def told(*arguments):
        return parse_fit(["--output", "x", *arguments], "finetune").config.trainer

    assert FINETUNE_DEFAULTS["max_epochs"] != TRAINER_DEFAULTS["max_epochs"]
    for name, other in TRAINER_DEFAULTS.items():
        if other != FINETUNE_DEFAULTS[name]:
            assert told(f"--trainer.{name}", str(other)) == {name: other}
        assert told(f"--trainer.{name}", str(FINETUNE_DEFAULTS[name])) == {}
    parse_fit(["--print_config"], "finetune")
    shown = yaml.safe_load(capsys.readouterr().out)["trainer"]
    assert shown["max_epochs"] == FINETUNE_DEFAULTS["max_epochs"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--modle.name", "ease"], r"unknown key 'modle': did you mean 'model'"),
        (["--outptu", "x"], r"unknown key 'outptu': did you mean 'output'"),
        (["--data.pth", "x"], r"unknown key 'data\.pth': did you mean 'path'"),
        (["--model.name", "eas"], r"did you mean 'ease'"),
        (["--model.aligned.layer", "lightgc"], r"did you mean 'lightgcn'"),
        (["--trainer.max_epoch", "5"], r"unknown key 'trainer\.max_epoch': did you mean 'max_ep"),
        (["--trainer.callbacks", "[]"], r"trainer\.callbacks is set by mmalign itself"),
        (["--trainer.logger", "false"], r"trainer\.logger is set by mmalign itself"),
        (["--trainer.self", "1"], r"unknown key 'trainer\.self'"),
        (["--trainer.barebones", "true"], r"trainer\.barebones takes away the checkpoints"),
        (["--trainer.overfit_batches", "1"], r"trainer\.overfit_batches .*limit_train_batches"),
        (["--trainer.precision", "64"], r"trainer\.precision must be 32 or mixed.*\(got 64\)"),
        (["--trainer.precision", "bf16-true"], r"trainer\.precision must be 32 or mixed"),
        (["--trainer.max_epochs", "many"], r"trainer\.max_epochs .*'many'.*int"),
        (["--trainer.max_epochs", "5.5"], r"trainer\.max_epochs .*5\.5"),
        (["--trainer", "5"], r"trainer must be a mapping"),
        (["--seed", "x"], r"seed must be of type int"),
        (["--training.patience", "2.5"], r"training\.patience"),
        (["stray"], r"unexpected argument .*'stray'"),
        (["--seed"], r"--seed has no value"),
        (["--config"], r"--config"),
        (["--config", "nowhere.yaml"], r"not found .*'nowhere\.yaml'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments, message):
    with pytest.raises(ConfigError, match=message) as caught:
        parse_fit(["--output", "art", *arguments])
    assert "\n" not in str(caught.value)


def test_a_wrong_key_is_found_in_every_file(files, tmp_path):
    (tmp_path / "wrong.yaml").write_text("modle: {name: ease}")
    for order in (
        [str(tmp_path / "wrong.yaml"), files[0]],
        [files[0], str(tmp_path / "wrong.yaml")],
    ):
        with pytest.raises(ConfigError, match="unknown key 'modle'"):
            parsed(*(f"--config={file}" for file in order))


def test_the_output_is_required():
    with pytest.raises(ConfigError, match="add --output FOLDER"):
        parse_fit(["--seed", "1"])


def test_what_print_config_prints_is_a_config(files, tmp_path, capsys):
    arguments = ["--config", files[0], "--config", files[1], "--trainer.devices", "2"]
    arguments += ["--output", "art", "--ckpt_path", "x.ckpt", "--data.interactions", "null"]
    assert parse_fit([*arguments, "--print_config"]) is None
    (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
    assert parse_fit(["--config", str(tmp_path / "printed.yaml")]) == parse_fit(arguments)
    assert parse_fit(["--print_config"]) is None  # an output is not needed to see the defaults
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["trainer"]["max_epochs"] == TRAINER_DEFAULTS["max_epochs"]
    assert shown["model"]["name"] == ExperimentConfig().model.name


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_has_an_example_and_the_trainers_options(flag, capsys):
    assert parse_fit(["--data.path", "x", flag]) is None
    shown = capsys.readouterr().out
    assert "example: mmalign fit --config" in shown
    for option in ("--trainer.max_epochs", "--model.name", "--data.path", "--print_config"):
        assert option in shown


@pytest.mark.parametrize(
    "options",
    [
        {"barebones": False, "overfit_batches": 0.0, "precision": None},
        {"precision": 32},
        {"precision": "bf16-mixed"},
    ],
)
def test_what_no_network_minds_is_let_through(options):
    check_trainer(options)


@pytest.mark.parametrize(
    "value", [timedelta(minutes=5), [timedelta(minutes=5)], {"minutes": timedelta(minutes=5)}]
)
def test_a_value_that_no_file_can_hold_is_refused(value):
    with pytest.raises(ConfigError, match=r"trainer\.max_time must be a plain value.*00:12:00:00"):
        check_plain({"max_time": value})
    with pytest.raises(ConfigError, match=r"trainer\.max_epochs must be a whole number"):
        check_plain({"max_epochs": "five"})
    check_plain({"max_steps": -1, "max_epochs": None})
    check_plain({"max_time": {"minutes": 5}, "default_root_dir": Path("logs"), "devices": [0]})


def test_every_default_is_an_option_of_the_trainer():
    check_trainer(TRAINER_DEFAULTS)
