from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from safetensors.numpy import load_file, save_file

from mmalign.encoders import load_encoder
from mmalign.errors import DataError
from mmalign.trainers.finetuning.validation import Retrieval


@dataclass
class Tuning:
    """A config of tuning on the shop, and options of a short run."""

    config: Path
    folder: Path

    def __call__(self, *more, output="tuned"):
        return (
            *("finetune", "--config", self.config, "--output", self.folder / output),
            *("--trainer.default_root_dir", self.folder / "run", *more),
        )


@pytest.fixture
def clip_presets(tmp_path):
    """The towers of a tiny open_clip model with random weights."""
    import open_clip
    from safetensors.torch import save_file

    model = {
        "embed_dim": 12,
        "vision_cfg": {
            "image_size": 32,
            "layers": 1,
            "width": 16,
            "head_width": 8,
            "patch_size": 16,
        },
        "text_cfg": {
            "context_length": 8,
            "vocab_size": 49408,
            "width": 16,
            "heads": 2,
            "layers": 1,
        },
    }
    folder = tmp_path / "clip-model"
    folder.mkdir()
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3}
    config = {"model_cfg": model, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    clip = open_clip.CLIP(**model, init_logit_scale=math.log(1 / 0.02))
    save_file(clip.state_dict(), folder / "open_clip_model.safetensors")
    presets = {}
    for modality in ("text", "image"):
        presets[modality] = tmp_path / f"clip-{modality}.yaml"
        lines = f"library: open_clip\nmodality: {modality}\nfolder: {folder}\nnormalize: true\n"
        presets[modality].write_text(lines)
    return presets


@pytest.fixture
def tuning(house, tmp_path):
    values = yaml.safe_load(house.everything.read_text())
    values["finetune"] = {
        "batch_size": 8,
        "text": {"dim": 12, "mode": "lora", "rank": 2},
        "image": {"dim": 12, "preprocess": {"input_size": [3, 32, 32]}},
    }
    path = tmp_path / "tune.yaml"
    path.write_text(yaml.safe_dump(values))
    return Tuning(path, tmp_path)


def test_tuned_encoders_are_written_fitted_and_extended(mmalign, house, tuning, tmp_path):
    """Tune, fit on the tuned encoders, and take in new items by content alone."""
    shown = mmalign(*tuning("--finetune.test", "true"))
    assert shown.code == 0, shown.err
    tuned = tmp_path / "tuned"
    assert sorted(p.name for p in tuned.iterdir()) == ["README.md", "image", "metrics.json", "text"]
    numbers = json.loads((tuned / "metrics.json").read_text())
    assert {"image_to_text@1", "retrieval"} <= numbers["valid"].keys() & numbers["test"].keys()
    trained, every = numbers["parameters"]["text"]
    assert 0 < trained < every
    assert "| text | a folder | lora |" in (tuned / "README.md").read_text()
    assert str(tmp_path) not in (tuned / "README.md").read_text()
    assert load_encoder(tuned / "text").dim == load_encoder(tuned / "image").dim == 12

    own = ("--encoders.text", tuned / "text", "--encoders.image", tuned / "image")
    assert (
        mmalign("fit", "--config", house.everything, *own, "--output", tmp_path / "art").code == 0
    )
    new = pd.DataFrame({"item_id": ["n1", "n2"], "title": ["a red cup", "tea"], "genre": "g1"})
    new["year"], new["image"] = 1990, None
    new.to_csv(tmp_path / "new.csv", index=False)
    added = mmalign(
        "add-items", tmp_path / "art", tmp_path / "new.csv", "--output", tmp_path / "a2"
    )
    assert added.code == 0, added.err
    listed = mmalign(
        *("recommend", tmp_path / "a2", "--users", "all", "-k", 40, "--candidates", "cold"),
        *("--output", tmp_path / "recs.parquet"),
    )
    assert listed.code == 0, listed.err
    assert {"n1", "n2"} <= set(pd.read_parquet(tmp_path / "recs.parquet")["item_id"])


def test_a_second_encoding_reads_only_what_changed(mmalign, house, tuning, tmp_path):
    assert mmalign(*tuning()).code == 0
    own = ("--encoders.text", tmp_path / "tuned" / "text", "--cache", tmp_path / "cache")
    first = mmalign("encode", "--config", house.everything, *own)
    again = mmalign("encode", "--config", house.everything, *own)
    assert "text: 0 encoded" not in first.out + first.err
    assert "text: 0 encoded" in again.out + again.err


def test_adapters_alone_are_written_on_request(mmalign, tuning, tmp_path):
    assert mmalign(*tuning(output="whole")).code == 0
    assert mmalign(*tuning("--finetune.merge", "false", output="adapter")).code == 0
    assert (tmp_path / "adapter" / "text" / "adapter_model.safetensors").is_file()
    assert not (tmp_path / "adapter" / "text" / "model.safetensors").exists()
    texts = ["a red cup of tea", "cake"]
    np.testing.assert_allclose(
        load_encoder(tmp_path / "adapter" / "text").encode(texts).values,
        load_encoder(tmp_path / "whole" / "text").encode(texts).values,
        atol=1e-5,
    )


def test_a_killed_run_goes_on(mmalign, tuning, tmp_path):
    assert mmalign(*tuning("--trainer.max_epochs", 2)).code == 0
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    shown = mmalign(*tuning("--trainer.max_epochs", 3, "--ckpt_path", last))
    assert shown.code == 0, shown.err
    assert [line[:9] for line in shown.err.splitlines() if line.startswith("epoch")] == [
        "epoch 3/3"
    ]


def test_half_of_the_pictures_may_be_missing_or_broken(mmalign, tuning, shop):
    for picture in sorted((shop / "images").iterdir())[1::2]:
        picture.write_bytes(b"no picture at all")
    shown = mmalign(*tuning("--data.path", shop))
    assert shown.code == 0, shown.err
    assert "note: image of " in shown.err


def test_a_tower_that_nothing_teaches_is_left_as_it_is(mmalign, tuning):
    pairs = "{image_text: 0, text_pairs: 1}"
    shown = mmalign(
        *tuning("--finetune.objectives", pairs, "--finetune.text_pairs", "[title, genre]"),
        *("--data.text", "[title, genre]"),
    )
    assert shown.code == 0, shown.err
    assert sorted(p.name for p in (tuning.folder / "tuned").iterdir() if p.is_dir()) == ["text"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--encoders.vision", "minilm"), "unknown modality 'encoders.vision'"),
        (("--encoders.text.titel", "minilm"), "encoders.text.titel names no column"),
        (
            ("--encoders.text", "efficientnet-lite0"),
            "encoders.text cannot be an encoder of image (got 'efficientnet-lite0')",
        ),
        (("--encoders.image", "minilm"), "set encoders.text, or name an encoder that reads image"),
        (("--finetune.drift", "features"), "a drift guard of weight 0 guards nothing"),
        (
            ("--finetune.text.preprocess", "{lower: true}"),
            "a text tower has neither preprocess nor views",
        ),
        (("--finetune.template", "{title}"), "put quotes around it"),
    ],
)
def test_settings_that_would_do_nothing_are_one_line(mmalign, tuning, options, message):
    shown = mmalign(*tuning(*options))
    assert shown.code == 2
    assert message in shown.error
    assert not (tuning.folder / "tuned").exists()


def test_a_template_of_one_field_is_given_in_quotes(mmalign, tuning):
    assert mmalign(*tuning("--finetune.template", "'{title}'")).code == 0


def test_items_may_be_read_in_passing(mmalign, tuning):
    shown = mmalign(*tuning("--finetune.streaming", "true"))
    assert shown.code == 0, shown.err
    assert "epoch 2/2" in shown.err
    refused = mmalign(
        *tuning("--finetune.streaming", "true", "--finetune.objectives", "{behaviour: 1}")
    )
    assert "behaviour needs all items at hand" in refused.error


def test_the_towers_of_an_open_clip_model_are_written_as_one(mmalign, tuning, clip_presets):
    own = {f"--encoders.{m}": clip_presets[m] for m in ("text", "image")}
    more = [part for pair in own.items() for part in pair]
    plain = ("--finetune.text.dim", "null", "--finetune.image.dim", "null")
    crop = ("--finetune.text.mode", "full")
    values = yaml.safe_load(tuning.config.read_text())
    del values["finetune"]["image"]["preprocess"]
    tuning.config.write_text(yaml.safe_dump(values))
    shown = mmalign(*tuning(*more, *plain, *crop, "--finetune.loss", "siglip"))
    assert shown.code == 0, shown.err
    folder = tuning.folder / "tuned" / "clip"
    kept = load_file(folder / "open_clip_model.safetensors")
    logged = pd.concat(pd.read_csv(f) for f in (tuning.folder / "run").rglob("metrics.csv"))
    temperature = logged["train/temperature"].dropna().tolist()
    assert temperature[0] == pytest.approx(0.02, rel=0.05)  # where the model itself stood
    written = math.exp(-kept["logit_scale"])
    assert min(abs(written / each - 1) for each in temperature) < 1e-5  # of the best epoch
    assert written != pytest.approx(0.02, rel=1e-5)
    assert -10.1 < kept["logit_bias"] < -9.9
    assert kept["logit_bias"] != -10
    assert (folder / "open_clip_config.json").is_file()
    assert "text: tuned/clip/text.yaml" in (folder.parent / "README.md").read_text()
    import open_clip

    model = open_clip.create_model(f"local-dir:{folder}").eval()
    assert model.logit_bias.item() == kept["logit_bias"]
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(["a red cup"])
    np.testing.assert_allclose(
        load_encoder(folder / "text.yaml").encode(["a red cup"]).values,
        model.encode_text(tokens, normalize=True).detach().numpy(),
        atol=1e-5,
    )


TEXTS = ["a red cup", "tea"]


def as_the_card_says(tuned, picture, *, elsewhere):
    """Rows of two texts and a picture by what README.md shows, offline and without mmalign."""
    shown = (tuned / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    script = f"""
import json, sys
from PIL import Image
{shown}
assert "mmalign" not in sys.modules
texts = model.eval().encode_text(tokenizer({TEXTS}), normalize=True)
pixels = transform(Image.open({str(picture)!r}).convert("RGB")).unsqueeze(0)
print(json.dumps([*texts.tolist(), *model.encode_image(pixels, normalize=True).tolist()]))
"""
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(elsewhere / "hub")}
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=elsewhere, env=env
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_towers_of_two_libraries_are_written_as_one_model_too(
    mmalign, house, tuning, tmp_path, caplog
):
    values = yaml.safe_load(tuning.config.read_text())
    values["finetune"]["image"]["preprocess"] |= {"crop_mode": "squash", "crop_pct": 1.0}
    tuning.config.write_text(yaml.safe_dump(values))
    shown = mmalign(*tuning("--finetune.average", 0.9))
    assert shown.code == 0, shown.err
    assert not caplog.records  # open_clip warns of weights that it does not find
    tuned = tuning.folder / "tuned"
    one, apart = load_encoder(tuned / "clip" / "text.yaml"), load_encoder(tuned / "text")
    rows = apart.encode(TEXTS).values
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(one.encode(TEXTS).values, rows, atol=1e-5)
    lines = as_the_card_says(tuned, house.shop / "images" / "1.png", elsewhere=tmp_path)
    picture = load_encoder(tuned / "clip" / "image.yaml").encode([house.shop / "images" / "1.png"])
    np.testing.assert_allclose(lines, [*one.encode(TEXTS).values, *picture.values], atol=1e-5)
    other = mmalign(*tuning("--finetune.objectives", "{behaviour: 1}"))
    assert other.code == 0, other.err
    assert not (tuned / "clip").exists()


def test_a_full_disk_leaves_the_old_encoders_whole(mmalign, tuning, tmp_path, monkeypatch):
    assert mmalign(*tuning()).code == 0
    before = {p: p.read_bytes() for p in (tmp_path / "tuned").rglob("*") if p.is_file()}
    import safetensors.torch

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    shown = mmalign(*tuning("--seed", 1))
    assert shown.code == 1
    assert "No space left" in shown.error
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert shown.error.endswith(f"go on with --ckpt_path {last}")
    assert before == {p: p.read_bytes() for p in (tmp_path / "tuned").rglob("*") if p.is_file()}
    monkeypatch.undo()
    again = mmalign(*tuning("--seed", 1, "--ckpt_path", last))
    assert again.code == 0, again.err
    assert "epoch" not in again.err


@pytest.mark.parametrize("where", ["finetune", "_measure", "_save"])
def test_an_interrupted_command_names_what_it_has_trained(
    mmalign, tuning, tmp_path, monkeypatch, where
):
    from mmalign.cli import finetune as command

    plain = command.finetune

    def interrupted(*told, **named):
        if where == "finetune":  # after training, before its best weights are read
            plain(*told, **named)
        raise KeyboardInterrupt

    monkeypatch.setattr(command, where, interrupted)
    shown = mmalign(*tuning())
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert shown.code == 1
    assert f"not written: interrupted: go on with --ckpt_path {last}" in shown.error


def test_an_interrupt_before_training_names_no_older_run(mmalign, tuning, tmp_path, monkeypatch):
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    last.write_bytes(b"of a run before")
    os.utime(last, (0, 0))

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("mmalign.cli.finetune.load_towers", interrupted)
    assert mmalign(*tuning()).error == "mmalign: error: interrupted"


def test_an_adapter_alone_is_not_written_over_its_base(mmalign, tuning, tmp_path):
    assert mmalign(*tuning()).code == 0
    before = {p: p.read_bytes() for p in (tmp_path / "tuned").rglob("*") if p.is_file()}
    own = ("--encoders.text", tmp_path / "tuned" / "text", "--finetune.merge", "false")
    shown = mmalign(*tuning(*own))
    assert "written over its base encoder" in shown.error
    assert "epoch" not in shown.err
    assert before == {p: p.read_bytes() for p in (tmp_path / "tuned").rglob("*") if p.is_file()}


def test_what_could_not_be_read_is_written_down(mmalign, tuning, shop):
    for name in ("1.png", "6.png"):  # of test and of valid
        (shop / "images" / name).write_bytes(b"no picture at all")
    shown = mmalign(*tuning("--data.path", shop, "--finetune.test", "true"))
    assert shown.code == 0, shown.err
    numbers = json.loads((tuning.folder / "tuned" / "metrics.json").read_text())
    card = (tuning.folder / "tuned" / "README.md").read_text()
    for split in ("valid", "test"):
        count = numbers["measured_items"][split]["image and text"]
        unread = numbers["unread_items"][split]["image and text"]
        assert count > 0
        assert unread > 0
        assert f"| {split} | items with image and text | {count:,} |" in card
        assert (
            f"| {split} | items with image and text that could not be read | {unread:,} |" in card
        )
        assert f"note: {split}: image and text of {unread} items unread" in shown.err


@pytest.mark.parametrize("pooling", ["mean", "pooler"])
def test_the_card_says_what_sentence_transformers_cannot_do(mmalign, house, tuning, pooling):
    preset = tuning.folder / "own.yaml"
    lines = f"library: transformers\nmodality: text\nfolder: {house.text_encoder}\n"
    preset.write_text(f"{lines}pooling: {pooling}\n")
    assert mmalign(*tuning("--encoders.text", preset)).code == 0
    card = (tuning.folder / "tuned" / "README.md").read_text()
    assert ("`SentenceTransformer` would give plain means" in card) == (pooling == "pooler")


def test_a_siglip_model_keeps_its_own_scale_and_bias(mmalign, tuning, clip_presets, tmp_path):
    folder = tmp_path / "clip-model"
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["init_logit_bias"] = -10
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    weights = load_file(folder / "open_clip_model.safetensors")
    weights |= {"logit_scale": np.float32(math.log(117)), "logit_bias": np.float32(-3)}
    save_file(
        {k: np.asarray(v) for k, v in weights.items()}, folder / "open_clip_model.safetensors"
    )
    own = [part for m in ("text", "image") for part in (f"--encoders.{m}", clip_presets[m])]
    values = yaml.safe_load(tuning.config.read_text())
    values["finetune"] |= {
        "loss": "siglip",
        "learning_rate": 1e-9,
        "text": {"mode": "head", "dim": None},
        "image": {"mode": "head", "dim": None},
    }
    tuning.config.write_text(yaml.safe_dump(values))
    shown = mmalign(*tuning(*own))
    assert shown.code == 0, shown.err
    kept = load_file(tuning.folder / "tuned" / "clip" / "open_clip_model.safetensors")
    assert kept["logit_bias"] == pytest.approx(-3, abs=1e-4)
    assert math.exp(kept["logit_scale"]) == pytest.approx(117, rel=1e-4)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--finetune.text.targets", "[qery]"), "did you mean"),
        (("--finetune.text.mode", "frozen"), "frozen"),
        (("--finetune.text.mode", "hed"), "did you mean 'head'"),
        (("--finetune.objectives", "{image_txt: 1}"), "did you mean 'image_text'"),
        (("--finetune.text.dim", "8"), "different widths"),
        (("--finetune.txt.dim", "8"), "did you mean 'text'"),
        (("--finetune.objectives", "{text_pairs: 1}"), "needs two columns"),
        (("--data.image", "null"), "needs a tower for image"),
        (("--encoders.text", "nowhere"), "nowhere"),
        (("--finetune.text.last_n", "99", "--finetune.text.mode", "last_n"), "99"),
    ],
)
def test_wrong_settings_are_one_line(mmalign, tuning, more, message):
    shown = mmalign(*tuning(*more))
    assert shown.code in (1, 2)
    assert message in shown.error


def test_the_config_can_be_printed_and_read_again(mmalign, tuning, tmp_path):
    shown = mmalign(*tuning("--print_config"))
    assert shown.code == 0
    values = yaml.safe_load(shown.out)
    assert values["finetune"]["text"]["mode"] == "lora"
    (tmp_path / "printed.yaml").write_text(shown.out)
    assert mmalign("finetune", "--config", tmp_path / "printed.yaml", "--help").code == 0


def test_an_output_is_asked_for(mmalign, tuning):
    shown = mmalign("finetune", "--config", tuning.config)
    assert shown.code == 2
    assert "finetune needs a place for the encoders" in shown.error


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [8, 3])
def test_two_processes_tune_as_one(mmalign, tuning, chunk):
    """Half the batch in each of two processes, contrasted with all rows: the same loss curve."""
    plain = (
        "--finetune.text.mode",
        "full",
        "--finetune.image.mode",
        "head",
        "--data.image",
        "image",
    )
    alone = tuning(*plain, "--finetune.batch_size", 16, output="alone")
    assert mmalign(*alone).code == 0
    two = tuning(*plain, "--finetune.batch_size", 8, "--finetune.chunk_size", chunk, output="two")
    two = [*two, *("--trainer.devices", 2, "--trainer.strategy", "ddp_find_unused_parameters_true")]
    two[two.index(tuning.folder / "run")] = tuning.folder / "run2"
    ran = subprocess.run(
        [sys.executable, "-m", "mmalign", *map(str, two)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.count("saved ") == 1
    curves = [
        pd.read_csv(tuning.folder / folder / "csv" / "version_0" / "metrics.csv")[
            "train/loss"
        ].dropna()
        for folder in ("run", "run2")
    ]
    # Pictures are altered by process and place, so the losses are close, not equal.
    assert curves[1].to_numpy() == pytest.approx(curves[0].to_numpy(), rel=0.15)


def test_towers_are_kept_where_open_clip_fails_or_test_cannot_be_read(mmalign, tuning, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("size mismatch for visual.trunk\nmore")

    monkeypatch.setattr("mmalign.cli.finetune.fits_open_clip", lambda **_: True)
    monkeypatch.setattr("mmalign.cli.finetune.save_pair", fail)
    measure = Retrieval.__call__

    def unread(self, split):
        if split == "test":
            raise DataError("nothing can be read", got="broken", fix="mend it")
        return measure(self, split)

    monkeypatch.setattr(Retrieval, "__call__", unread)
    shown = mmalign(*tuning("--finetune.test", "true"))
    assert shown.code == 0, shown.err
    assert "note: test is not measured: nothing can be read" in shown.err
    assert "open_clip model as well: size mismatch for visual.trunk\n" in shown.err
    tuned = tuning.folder / "tuned"
    assert load_encoder(tuned / "text").dim == 12
    assert "test" not in json.loads((tuned / "metrics.json").read_text())
