from __future__ import annotations

import errno
import json
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from mmalign.encoders import load_encoder
from mmalign.encoders.tuning import (
    beyond_sentences,
    fits_open_clip,
    load_tower,
    own_scale,
    save_pair,
)
from mmalign.errors import ConfigError, DataError, EncoderError

KINDS = ["bert", "dinov2", "siglip", "timm", "clip-text", "clip-image", "clip-hf-text"]
KINDS_AND_MODES = [
    *((kind, "lora") for kind in KINDS),
    ("bert", "head"),
    ("clip-text", "head"),
    ("timm", "last_n"),
    ("siglip", "full"),
    ("clip-image", "full"),
]


def rows_of(tower, items, *, unit=False):
    with torch.no_grad():
        rows = tower.eval()(tower.collate(items, training=False).inputs)
    return (torch.nn.functional.normalize(rows, dim=1) if unit else rows).numpy()


def pixels(paths, transform):
    return torch.stack([transform(Image.open(path).convert("RGB")) for path in paths])


def project(rows, tower):
    return rows if tower.projection is None else tower.projection(rows)


@pytest.mark.parametrize(("kind", "mode"), KINDS_AND_MODES)
def test_a_folder_gives_the_towers_rows(kind, mode, tuned, tmp_path, encoders):
    tower, items = tuned(kind, mode=mode)
    before = load_encoder(encoders[kind], device="cpu")
    expected = rows_of(tower, items, unit="clip" in kind)
    tower.save_pretrained(tmp_path / "tuned")
    np.testing.assert_array_equal(rows_of(tower, items, unit="clip" in kind), expected)
    encoder = load_encoder(tmp_path / "tuned", device="cpu")
    assert (encoder.modality, encoder.dim) == (tower.modality, tower.dim)
    np.testing.assert_allclose(encoder.encode(items).values, expected, atol=2e-5)
    assert encoder.fingerprint != before.fingerprint
    assert not [*(tmp_path / "tuned").rglob("*.bin"), *(tmp_path / "tuned").rglob("*.pt*")]


@pytest.mark.parametrize(
    ("pooling", "normalize", "hidden"), [("mean", False, 0), ("mean", True, 7), ("cls", True, 0)]
)
def test_sentence_transformers_gives_the_same_rows(
    pooling, normalize, hidden, bert_folder, tmp_path, train, values, tune
):
    from sentence_transformers import SentenceTransformer

    path = tmp_path / "own.yaml"
    path.write_text(
        f"library: transformers\nmodality: text\nfolder: {bert_folder}\npooling: {pooling}\n"
        f"normalize: {str(normalize).lower()}\nprefix: 'query: '\n"
    )
    tower = load_tower(path, tune(dim=5, hidden=hidden, max_length=8))
    train(tower, values(tower))
    tower.save_pretrained(tmp_path / "tuned")
    theirs = SentenceTransformer(str(tmp_path / "tuned"), device="cpu")
    texts = [*values(tower), "tea " * 30]
    ours = load_encoder(tmp_path / "tuned", device="cpu").encode(texts).values
    np.testing.assert_allclose(theirs.encode(texts), ours, atol=1e-5)
    # Its own files say the same without our preset.
    (tmp_path / "tuned" / "preset.yaml").unlink()
    alone = load_encoder(tmp_path / "tuned", device="cpu").encode(texts).values
    np.testing.assert_allclose(alone, ours, atol=1e-6)


def test_transformers_loads_a_text_folder(tuned, tmp_path):
    from transformers import AutoModel, AutoTokenizer

    tower, texts = tuned("bert", mode="lora")
    tower.save_pretrained(tmp_path / "tuned")
    model = AutoModel.from_pretrained(tmp_path / "tuned").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tuned")
    with torch.no_grad():
        hidden = [model(**tokenizer(t, return_tensors="pt")).last_hidden_state[0] for t in texts]
        rows = project(torch.stack([h.mean(0) for h in hidden]), tower)
    np.testing.assert_allclose(rows, rows_of(tower, texts), atol=1e-5)


def test_transformers_loads_a_vision_folder_with_its_preprocessing(tuned, tmp_path):
    from transformers import AutoImageProcessor, AutoModel

    crop = {"crop_size": {"height": 14, "width": 14}}
    tower, pictures = tuned("dinov2", mode="full", preprocess=crop)
    tower.save_pretrained(tmp_path / "tuned")
    processor = AutoImageProcessor.from_pretrained(tmp_path / "tuned")
    model = AutoModel.from_pretrained(tmp_path / "tuned").eval()
    batch = pixels(pictures, lambda i: processor(images=i, return_tensors="pt").pixel_values[0])
    assert batch.shape[-2:] == (14, 14)
    with torch.no_grad():
        rows = project(model(pixel_values=batch).last_hidden_state[:, 0], tower)
    np.testing.assert_allclose(rows, rows_of(tower, pictures), atol=1e-5)


def test_timm_loads_an_image_folder_with_its_preprocessing(tuned, tmp_path):
    import timm

    size = {"input_size": [3, 96, 72], "crop_mode": "squash", "crop_pct": 1.0}
    tower, pictures = tuned("timm", mode="full", preprocess=size)
    tower.save_pretrained(tmp_path / "tuned")
    model = timm.create_model(f"local-dir:{tmp_path / 'tuned'}", pretrained=True).eval()
    config = timm.data.resolve_model_data_config(model)
    assert config["input_size"] == (3, 96, 72)
    with torch.no_grad():
        batch = pixels(pictures, timm.data.create_transform(**config))
        rows = project(model(batch), tower)
    np.testing.assert_allclose(rows, rows_of(tower, pictures), atol=1e-5)


def test_sizes_that_the_model_before_was_tested_at_are_forgotten(timm_folder, tune, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(timm_folder, source)
    config = json.loads((source / "config.json").read_text())
    config["pretrained_cfg"] |= {"test_input_size": [3, 200, 200], "test_crop_pct": 0.5}
    (source / "config.json").write_text(json.dumps(config))
    load_tower(source, tune(preprocess={"crop_pct": 0.9})).save_pretrained(tmp_path / "tuned")
    written = json.loads((tmp_path / "tuned" / "config.json").read_text())["pretrained_cfg"]
    assert written["crop_pct"] == 0.9
    assert not [name for name in written if name.startswith("test_")]


@pytest.mark.parametrize("kind", ["clip", "clip-hf"])
def test_open_clip_loads_a_pair_of_towers(kind, tuned, tmp_path):
    import open_clip

    text, texts = tuned(f"{kind}-text", mode="lora")
    image, pictures = tuned(f"{kind}-image", mode="last_n", preprocess={"resize_mode": "squash"})
    save_pair(tmp_path / "pair", text, image)
    name = f"local-dir:{tmp_path / 'pair'}"
    model, _, transform = open_clip.create_model_and_transforms(name)
    with torch.no_grad():
        got = model.eval().encode_text(open_clip.get_tokenizer(name)(texts)).numpy()
        np.testing.assert_allclose(got, rows_of(text, texts), atol=1e-5)
        got = model.encode_image(pixels(pictures, transform)).numpy()
        np.testing.assert_allclose(got, rows_of(image, pictures), atol=1e-5)
    for file, tower, items in (("text", text, texts), ("image", image, pictures)):
        encoder = load_encoder(tmp_path / "pair" / f"{file}.yaml", device="cpu")
        expected = rows_of(tower, items, unit=True)
        np.testing.assert_allclose(encoder.encode(items).values, expected, atol=1e-5)
    save_pair(tmp_path / "pair", text, image)  # what is ours may be replaced


def test_a_pair_is_written_with_the_temperature_and_the_bias_of_its_training(
    clip_presets, tune, tmp_path
):
    text, image = (load_tower(clip_presets[f"clip-{name}"], tune()) for name in ("text", "image"))
    save_pair(tmp_path / "pair", text, image, temperature=0.05, bias=-3.0)
    weights = load_file(tmp_path / "pair" / "open_clip_model.safetensors")
    assert weights["logit_scale"].exp().item() == pytest.approx(20)
    assert weights["logit_bias"].item() == -3


def test_one_tower_of_a_pair_leaves_the_other_as_it_was(tuned, tmp_path, clip_folder):
    tower, _ = tuned("clip-text", mode="full")
    tower.save_pretrained(tmp_path / "tuned")
    old = load_file(clip_folder / "open_clip_model.safetensors")
    new = load_file(tmp_path / "tuned" / "open_clip_model.safetensors")
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert old.keys() == new.keys()
    assert "text_projection" in changed
    assert not any(name.startswith(("visual", "logit")) for name in changed)


SQUASHED = {"input_size": [3, 40, 32], "crop_mode": "squash", "crop_pct": 1.0}


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_towers_of_two_libraries_are_written_as_one_open_clip_model(
    pooling, tuned, tune, tmp_path, bert_folder
):
    import open_clip

    source = tmp_path / "bert"
    shutil.copytree(bert_folder, source)
    (source / "mmalign.yaml").write_text(
        f"library: transformers\nmodality: text\nfolder: .\npooling: {pooling}\nmax_length: 12\n"
    )
    text, texts = tuned("bert", source, mode="lora", dim=6)
    image, pictures = tuned("timm", mode="last_n", dim=6, preprocess=SQUASHED)
    assert fits_open_clip(text, image)
    save_pair(tmp_path / "clip", text, image, temperature=0.05)
    for file, tower, items in (("text", text, texts), ("image", image, pictures)):
        encoder = load_encoder(tmp_path / "clip" / f"{file}.yaml", device="cpu")
        expected = rows_of(tower, items, unit=True)
        np.testing.assert_allclose(encoder.encode(items).values, expected, atol=1e-5)
    name = f"local-dir:{tmp_path / 'clip'}"
    model, _, transform = open_clip.create_model_and_transforms(name)
    with torch.no_grad():
        got = model.eval().encode_text(open_clip.get_tokenizer(name)(texts)).numpy()
        np.testing.assert_allclose(got, rows_of(text, texts), atol=1e-5)
        got = model.encode_image(pixels(pictures, transform)).numpy()
        np.testing.assert_allclose(got, rows_of(image, pictures), atol=1e-5)
    assert model.logit_scale.exp().item() == pytest.approx(20)
    before = load_encoder(tmp_path / "clip" / "text.yaml", lazy=True).fingerprint
    moved = shutil.move(tmp_path / "clip", tmp_path / "moved")
    config = moved / "open_clip_config.json"
    config.write_text(config.read_text().replace(str(tmp_path / "clip"), str(moved)))
    assert str(moved) in config.read_text()  # where it lies is not what it computes
    assert load_encoder(moved / "text.yaml", lazy=True).fingerprint == before
    config.write_text(config.read_text().replace('"embed_dim": 6', '"embed_dim": 7'))
    assert load_encoder(moved / "text.yaml", lazy=True).fingerprint != before
    config.write_text(config.read_text().replace('"embed_dim": 7', '"embed_dim": 6'))
    again = [load_tower(moved / f"{name}.yaml", tune()) for name in ("text", "image")]
    save_pair(tmp_path / "clip", *again)  # tuned on, it is a pair of towers like any other
    again[0].save_pretrained(tmp_path / "one")
    for folder in ("clip", "one"):
        open_clip.create_model(f"local-dir:{tmp_path / folder}")
        shutil.rmtree(tmp_path / folder)  # each names itself, not the one before


@pytest.mark.parametrize(
    ("of_text", "of_image"),
    [
        ({"dim": 6}, {"dim": 5, "preprocess": SQUASHED}),
        ({"dim": 6, "hidden": 4}, {"dim": 6, "preprocess": SQUASHED}),
        ({"dim": None}, {"dim": 6, "preprocess": SQUASHED}),
        ({"dim": 6}, {"dim": 6, "preprocess": {"crop_pct": 0.9}}),
        ({"dim": 6}, {"dim": 6, "preprocess": {"crop_mode": "border", "crop_pct": 1.0}}),
    ],
)
def test_what_open_clip_cannot_compute_is_not_written_as_one(of_text, of_image, tuned, tmp_path):
    text, image = (
        tuned("bert", mode="full", **of_text)[0],
        tuned("timm", mode="full", **of_image)[0],
    )
    assert not fits_open_clip(text, image)
    with pytest.raises(ConfigError, match="one open_clip model"):
        save_pair(tmp_path / "clip", text, image)


def test_a_pair_is_of_one_model(tuned, tmp_path):
    text, _ = tuned("clip-text")
    for other in ("clip-hf-image", "clip-hf-text", "bert"):
        with pytest.raises(ConfigError, match="the image tower of one open_clip model"):
            save_pair(tmp_path / "pair", text, tuned(other)[0])


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_alone_is_merged_on_loading(kind, beside, tuned, norms, tmp_path):
    tower, items = tuned(kind, mode="lora", whole=norms[kind] if beside else ())
    tower.save_pretrained(tmp_path / "adapter", merge=False)
    tower.save_pretrained(tmp_path / "whole")
    files = {path.name for path in (tmp_path / "adapter").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "preset.yaml"} <= files
    assert "model.safetensors" not in files
    adapter = load_encoder(tmp_path / "adapter", device="cpu")
    whole = load_encoder(tmp_path / "whole", device="cpu")
    expected = rows_of(tower, items, unit="clip" in kind)
    np.testing.assert_allclose(adapter.encode(items).values, expected, atol=2e-5)
    np.testing.assert_allclose(adapter.encode(items).values, whole.encode(items).values, atol=2e-5)
    assert adapter.fingerprint == load_encoder(tmp_path / "adapter", lazy=True).fingerprint


def test_the_fingerprint_of_an_adapter_covers_all_its_files(tuned, tmp_path):
    tower, _ = tuned("bert", mode="lora")
    prints = set()
    for name in ("2_Dense/model.safetensors", "adapter_model.safetensors", None):
        tower.save_pretrained(tmp_path / "adapter", merge=False)
        if name:
            weights = load_file(tmp_path / "adapter" / name)
            save_file({k: v + 1 for k, v in weights.items()}, tmp_path / "adapter" / name)
        prints.add(load_encoder(tmp_path / "adapter", lazy=True).fingerprint)
    assert len(prints) == 3


def test_peft_loads_an_adapter(tuned, tmp_path, bert_folder):
    import peft
    from transformers import AutoModel, AutoTokenizer

    tower, texts = tuned("bert", mode="lora")
    tower.save_pretrained(tmp_path / "adapter", merge=False)
    base = AutoModel.from_pretrained(bert_folder)
    model = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    tokens = AutoTokenizer.from_pretrained(bert_folder)(texts[0], return_tensors="pt")
    with torch.no_grad():
        row = project(model(**tokens).last_hidden_state[0].mean(0), tower)
    np.testing.assert_allclose(row, rows_of(tower, texts[:1])[0], atol=1e-5)


def test_an_adapter_of_another_base_is_refused(bert_folder, tmp_path, tune):
    base = tmp_path / "base"
    shutil.copytree(bert_folder, base)
    tower = load_tower(base, tune(mode="lora"))
    tower.save_pretrained(tmp_path / "adapter", merge=False)
    expected = yaml.safe_load((tmp_path / "adapter" / "preset.yaml").read_text())["adapter"]
    assert expected["fingerprint"] == load_encoder(base, lazy=True).fingerprint
    weights = load_file(base / "model.safetensors")
    save_file(
        {n: v + 0.01 for n, v in weights.items()}, base / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(
        EncoderError, match=r"was made for encoder .*/base with fingerprint"
    ) as caught:
        load_encoder(tmp_path / "adapter", lazy=True)
    assert expected["fingerprint"][:12] in str(caught.value)
    assert "bring back" in str(caught.value)
    assert "\n" not in str(caught.value)
    shutil.rmtree(base)
    with pytest.raises(EncoderError, match="no such encoder preset or model folder"):
        load_encoder(tmp_path / "adapter")


def test_an_adapter_is_not_trained_on_but_a_merged_folder_is(tuned, tmp_path, tune, values):
    tower, texts = tuned("bert", mode="lora", hidden=3)
    tower.save_pretrained(tmp_path / "adapter", merge=False)
    with pytest.raises(EncoderError, match="cannot be trained on"):
        load_tower(tmp_path / "adapter", tune())
    tower.save_pretrained(tmp_path / "whole")
    again = load_tower(tmp_path / "whole", tune(mode="head", dim=6))  # the projection it has
    np.testing.assert_allclose(rows_of(again, texts), rows_of(tower, texts), atol=1e-5)
    assert len(again.trainable()["projection"]) == 3
    wider = load_tower(tmp_path / "whole", tune(mode="head", dim=9))
    assert (wider.dim, len(wider.trainable()["projection"])) == (9, 4)


def test_an_adapter_that_is_not_complete(tuned, tmp_path):
    tower, _ = tuned("bert", mode="lora")
    tower.save_pretrained(tmp_path / "adapter", merge=False)
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    with pytest.raises(EncoderError, match=r"not complete.*adapter_model\.safetensors"):
        load_encoder(tmp_path / "adapter", device="cpu")


def test_other_modes_have_nothing_to_leave_apart(tuned, tmp_path):
    tower, _ = tuned("bert", mode="full")
    tower.save_pretrained(tmp_path / "tuned", merge=False)
    assert (tmp_path / "tuned" / "model.safetensors").is_file()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("kind", ["bert", "dinov2", "timm", "clip-text", "adapter"])
def test_a_full_disk_leaves_the_old_folder_whole(kind, tuned, tmp_path):
    merge = kind != "adapter"
    tower, _ = tuned("bert" if kind == "adapter" else kind, mode="lora")
    tower.save_pretrained(tmp_path / "tuned", merge=merge)
    before = contents(tmp_path / "tuned")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (700, hard))  # no file may grow beyond
    try:
        with pytest.raises(DataError, match=r"could not write .*/tuned.*free space") as caught:
            tower.save_pretrained(tmp_path / "tuned", merge=merge)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert contents(tmp_path / "tuned") == before
    assert [path.name for path in tmp_path.iterdir()] == ["tuned"]


def test_a_disk_that_fills_at_the_last_file(tuned, tmp_path, monkeypatch):
    tower, _ = tuned("bert")
    tower.save_pretrained(tmp_path / "tuned")
    before = contents(tmp_path / "tuned")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("mmalign.encoders.tuning.export._write_preset", full)
    with pytest.raises(DataError, match="No space left"):
        tower.save_pretrained(tmp_path / "tuned")
    assert contents(tmp_path / "tuned") == before


def test_a_folder_of_other_things_is_not_replaced(tuned, tmp_path):
    tower, _ = tuned("bert")
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match="would be lost"):
        tower.save_pretrained(tmp_path)
    assert (tmp_path / "thesis.tex").is_file()


def test_no_path_of_this_machine_but_that_of_the_base_is_written(tuned, tmp_path):
    tower, _ = tuned("bert")
    tower.save_pretrained(tmp_path / "tuned")
    for name, data in contents(tmp_path / "tuned").items():
        if name.endswith((".json", ".yaml")):
            assert str(tmp_path.parent).encode() not in data, name
    assert json.loads((tmp_path / "tuned" / "modules.json").read_text())[2]["path"] == "2_Dense"


def test_an_adapter_alone_never_replaces_its_base(bert_folder, tmp_path, tune):
    base = shutil.copytree(bert_folder, tmp_path / "mine" / "text")
    (base / "preset.yaml").write_text("library: transformers\nmodality: text\n")
    tower = load_tower(base, tune(mode="lora"))
    before = contents(base)
    for output in (base, base.parent, base / "adapter"):
        with pytest.raises(ConfigError, match=r"written over its base encoder .*mine/text"):
            tower.save_pretrained(output, merge=False)
    assert contents(base) == before


def test_an_adapter_that_is_its_own_base_is_one_line(bert_folder, tmp_path, tune):
    base = shutil.copytree(bert_folder, tmp_path / "text")
    load_tower(base, tune(mode="lora")).save_pretrained(tmp_path / "adapter", merge=False)
    shutil.rmtree(base)
    shutil.copytree(tmp_path / "adapter", base)
    for folder in (base, tmp_path / "adapter"):
        with pytest.raises(EncoderError, match=r"base .* is not there: it is an adapter itself"):
            load_encoder(folder)


def test_a_damaged_adapter_is_named_and_not_its_base(tuned, tmp_path):
    tower, _ = tuned("bert", mode="lora")
    tower.save_pretrained(tmp_path / "adapter", merge=False)
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"12")
    with pytest.raises(EncoderError, match=r"cannot merge the adapter in .*/adapter into"):
        load_encoder(tmp_path / "adapter", device="cpu")


@pytest.mark.parametrize("own", ["suffix: ' of tea'\npooling: last", "pooling: pooler"])
def test_some_texts_are_beyond_sentence_transformers(bert_folder, tmp_path, tune, own):
    path = tmp_path / "own.yaml"
    path.write_text(f"library: transformers\nmodality: text\nfolder: {bert_folder}\n{own}\n")
    assert beyond_sentences(load_tower(path, tune(dim=None)))
    assert not beyond_sentences(load_tower(bert_folder, tune(dim=None)))


def test_the_scale_of_an_open_clip_model_is_read(clip_folder, tmp_path, tune):
    folder = shutil.copytree(clip_folder, tmp_path / "model")
    weights = load_file(folder / "open_clip_model.safetensors")
    path = tmp_path / "own.yaml"
    path.write_text(f"library: open_clip\nmodality: text\nfolder: {folder}\n")
    assert own_scale(load_tower(path, tune(dim=None)))[1] is None
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["init_logit_bias"] = -10
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    scale = {"logit_scale": torch.tensor(117.0).log(), "logit_bias": torch.tensor(-3.0)}
    save_file({**weights, **scale}, folder / "open_clip_model.safetensors")
    assert own_scale(load_tower(path, tune(dim=None))) == pytest.approx((1 / 117, -3))


def test_the_tokens_of_an_open_clip_text_cannot_be_limited(encoders, tune):
    with pytest.raises(ConfigError, match=r"as many tokens as .*max_length=4"):
        load_tower(encoders["clip-text"], tune(dim=None, max_length=4))
