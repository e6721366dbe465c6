from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmalign.encoders import load_encoder

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
