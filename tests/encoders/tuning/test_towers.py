from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms.functional import resized_crop

from mmalign.encoders import load_encoder
from mmalign.encoders.text import PART, TransformersText
from mmalign.encoders.tuning import load_tower
from mmalign.errors import ConfigError, EncoderError

KINDS = ["bert", "dinov2", "siglip", "timm", "clip-text", "clip-image", "clip-hf-text"]
IMAGES = ["dinov2", "siglip", "timm", "clip-image"]


def unit(rows):
    return torch.nn.functional.normalize(torch.as_tensor(rows), dim=1).detach().numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_a_tower_starts_as_the_frozen_encoder(kind, encoders, values, tune):
    tower = load_tower(encoders[kind], tune())
    frozen = load_encoder(encoders[kind], device="cpu")
    batch = tower.collate(values(tower), training=False)
    rows = tower(batch.inputs)
    assert rows.requires_grad
    assert (tower.modality, tower.dim) == (frozen.modality, frozen.dim)
    assert batch.kept == list(range(len(values(tower))))
    expected = frozen.encode(values(tower)).values
    rows = unit(rows) if "clip" in kind else rows.detach().numpy()
    np.testing.assert_allclose(rows, expected, atol=1e-5)


def test_prefix_and_length_follow_preset_and_config(bert_folder, tmp_path, tune):
    path = tmp_path / "own.yaml"
    path.write_text(
        f"library: transformers\nmodality: text\nfolder: {bert_folder}\nprefix: 'query: '\n"
    )
    tower = load_tower(path, tune(max_length=5))
    inputs = tower.collate(["tea " * 20, "tea"], training=True).inputs
    assert inputs["input_ids"].tolist() == [[2, 4, 5, 11, 3]] * 2


def test_preprocessing_is_that_of_the_preset_but_for_what_is_asked(timm_folder, tmp_path, tune):
    path = tmp_path / "own.yaml"
    path.write_text(
        f"library: timm\nmodality: image\nfolder: {timm_folder}\n"
        "preprocess: {crop_pct: 0.5, crop_mode: center}\n"
    )
    tower = load_tower(path, tune(preprocess={"crop_mode": "squash"}))
    assert tower.origin.preset.preprocess == {"crop_pct": 0.5, "crop_mode": "squash"}


def test_texts_that_cannot_be_read_are_left_out_alone(bert_folder, tune):
    tower = load_tower(bert_folder, tune())
    batch = tower.collate(["tea", "", b"tea", "a red cup"], training=True)
    assert batch.kept == [0, 3]
    assert batch.problems == {1: "the text is empty", 2: "not a text but bytes"}
    assert tower(batch.inputs).shape == (2, 16)


@pytest.mark.parametrize("kind", IMAGES)
def test_a_broken_picture_is_left_out_alone(kind, encoders, pictures, tune):
    tower = load_tower(encoders[kind], tune())
    values = [pictures[0], b"words", pictures[1], pictures[0].with_name("absent.png")]
    batch = tower.collate(values, training=True)
    assert batch.kept == [0, 2]
    assert sorted(batch.problems) == [1, 3]
    assert "not a picture" in batch.problems[1]
    assert "not found" in batch.problems[3]
    assert len(tower(batch.inputs)) == 2


def middle(pixels):
    """85% of width and height, scaled up again by the resampling of another library."""
    sides = [(side - round(side * 0.85)) // 2 for side in pixels.shape[2:]]
    size = [round(side * 0.85) for side in pixels.shape[2:]]
    return resized_crop(pixels, *sides, *size, list(pixels.shape[2:]), antialias=False)


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("kind", IMAGES)
def test_views_are_averaged_outside_training_alone(kind, count, encoders, pictures, tune, tmp_path):
    dim = None if "clip" in kind else 6
    tower = load_tower(encoders[kind], tune(test_views=count, dim=dim, mode="last_n"))
    pixels = tower.collate(pictures, training=False).inputs
    whole = tower(pixels)
    tower.save_pretrained(tmp_path / "tuned")
    encoder = load_encoder(tmp_path / "tuned", device="cpu")
    rows = torch.from_numpy(encoder.encode(pictures).values)
    expected = torch.nn.functional.normalize(whole, dim=1) if encoder.normalize else whole
    torch.testing.assert_close(rows, expected.detach(), atol=1e-5, rtol=1e-4)
    plain = load_tower(tmp_path / "tuned", tune(test_views=1, dim=dim))
    views = [pixels, pixels.flip(-1)]
    if count == 4:
        views += [middle(pixels), middle(pixels).flip(-1)]
    each = [plain(view) for view in views]
    assert not torch.allclose(each[0], each[-1], atol=1e-4)
    torch.testing.assert_close(whole, sum(each) / count, atol=1e-5, rtol=1e-4)
    tower.train()
    for module in tower.modules():  # so that training differs by the views alone
        module.training = module is tower
    torch.testing.assert_close(tower(pixels), each[0], atol=1e-5, rtol=1e-4)


def test_a_text_has_no_views(bert_folder, tune):
    with pytest.raises(ConfigError, match="only pictures have views"):
        load_tower(bert_folder, tune(test_views=2))


@pytest.mark.parametrize("kind", ["bert", "timm"])
def test_when_nothing_can_be_read_there_are_no_rows(kind, encoders, tune):
    tower = load_tower(encoders[kind], tune())
    batch = tower.collate([b"", b""], training=True)
    assert (batch.inputs, batch.kept, sorted(batch.problems)) == (None, [], [0, 1])
    assert tower(batch.inputs).shape == (0, tower.dim)


@pytest.mark.parametrize("kind", IMAGES)
def test_augmentation_follows_the_seed_and_keeps_the_models_scaling(kind, encoders, pictures, tune):
    tower = load_tower(encoders[kind], tune())
    plain = tower.collate(pictures, training=False).inputs
    torch.manual_seed(1)
    one, two = (tower.collate(pictures, training=True).inputs for _ in range(2))
    torch.manual_seed(1)
    again = tower.collate(pictures, training=True).inputs
    assert torch.equal(one, again)
    assert not torch.equal(one, two)
    assert one.shape == plain.shape
    assert not torch.equal(one, plain)
    assert torch.equal(tower.collate(pictures, training=False).inputs, plain)
    # Brightness and contrast move a pixel by a tenth; another mean or deviation moves all of them.
    assert abs(one.mean() - plain.mean()) < 0.3
    assert abs(one.std() / plain.std() - 1) < 0.3


def test_preprocessing_can_be_overridden(timm_folder, pictures, tune):
    tower = load_tower(timm_folder, tune(preprocess={"input_size": [3, 96, 72]}))
    assert tower.collate(pictures[:2], training=True).inputs.shape == (2, 3, 96, 72)
    assert tower.dim == load_encoder(timm_folder, device="cpu").dim


@pytest.mark.parametrize(("hidden", "layers"), [(0, 1), (7, 2)])
def test_a_new_projection_stands_on_top(hidden, layers, bert_folder, tune):
    tower = load_tower(bert_folder, tune(mode="head", dim=5, hidden=hidden))
    linear = [m for m in tower.projection if isinstance(m, torch.nn.Linear)]
    assert [m.out_features for m in linear] == [7, 5][-layers:]
    assert any(isinstance(m, torch.nn.GELU) for m in tower.projection) == bool(hidden)
    rows = tower(tower.collate(["tea"], training=False).inputs)
    assert rows.shape == (1, tower.dim) == (1, 5)


@pytest.mark.parametrize("kind", ["bert", "timm"])
def test_a_new_projection_can_be_started(kind, encoders, values, tune):
    tower = load_tower(encoders[kind], tune(mode="head", dim=5))
    assert tower.starts_anew
    inputs = tower.collate(values(tower)[:3], training=False).inputs
    tower.train()
    below = tower.below_projection(inputs)
    assert tower.training
    weight = torch.randn(3, below.shape[1])
    tower.start_at(weight)
    tower.eval()
    rows = tower(inputs)
    torch.testing.assert_close(rows[:, :3], below @ weight.T)
    assert bool((rows[:, 3:] == 0).all()) == (tower.modality == "image")
    rows[:, 3:].sum().backward()
    assert tower.projection[-2].weight.grad[3:].abs().sum() > 0


@pytest.mark.parametrize("hidden", [0, 7])
def test_a_new_projection_can_be_left_out(hidden, bert_folder, tmp_path, tune):
    load_tower(bert_folder, tune(mode="head", dim=5)).save_pretrained(tmp_path / "tuned")
    for folder in (bert_folder, tmp_path / "tuned"):
        encoder = load_tower(folder, tune(mode="full", dim=None))
        tower = load_tower(folder, tune(mode="full", dim=4, hidden=hidden))
        inputs = tower.collate(["tea", "red cup"], training=False).inputs
        torch.testing.assert_close(tower.below_projection(inputs), encoder(inputs))
        torch.testing.assert_close(encoder.below_projection(inputs), encoder(inputs))


def test_an_old_or_hidden_projection_is_not_started(bert_folder, tmp_path, tune):
    load_tower(bert_folder, tune(mode="head", dim=5)).save_pretrained(tmp_path / "tuned")
    assert not load_tower(tmp_path / "tuned", tune(mode="head", dim=5)).starts_anew
    assert load_tower(tmp_path / "tuned", tune(mode="head", dim=4)).starts_anew
    assert not load_tower(bert_folder, tune(mode="head", dim=5, hidden=7)).starts_anew
    assert not load_tower(bert_folder, tune(mode="full", dim=None)).starts_anew


def test_an_open_clip_tower_takes_no_other_projection(clip_presets, tune):
    assert load_tower(clip_presets["clip-text"], tune(dim=12)).dim == 12
    for wrong in ({"dim": 5}, {"hidden": 4}):
        with pytest.raises(ConfigError, match="its own space"):
            load_tower(clip_presets["clip-text"], tune(**wrong))


def test_a_tower_that_is_not_there(tune):
    with pytest.raises(EncoderError, match="did you mean 'minilm'"):
        load_tower("minilmm", tune())


def test_a_damaged_tower_is_one_line(bert_folder, tmp_path, tune):
    import shutil

    shutil.copytree(bert_folder, tmp_path / "damaged")
    (tmp_path / "damaged" / "model.safetensors").write_bytes(b"words")
    with pytest.raises(EncoderError, match="cannot load encoder 'damaged'"):
        load_tower(tmp_path / "damaged", tune())


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_large_batch_of_texts_runs_in_parts_of_like_length(pooling, bert_folder):
    tower = TransformersText(str(bert_folder), torch.device("cpu"), pooling=pooling)
    texts = [" ".join(["red cup of tea"] * (1 + n % 5)) for n in range(3 * PART + 7)]
    tokens = tower.tokenize(texts)[0]
    whole = tower(tower.pad(tokens))
    alone = torch.cat([tower(tower.pad([row])) for row in tokens])
    torch.testing.assert_close(whole, alone, atol=1e-5, rtol=1e-4)
