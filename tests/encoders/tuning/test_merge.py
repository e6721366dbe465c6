from __future__ import annotations

import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from mmalign.encoders import load_encoder
from mmalign.encoders.tuning import load_tower, save_merged
from mmalign.errors import DataError, EncoderError

KINDS = ["bert", "dinov2", "siglip", "timm", "clip-text", "clip-image", "clip-hf-text"]


@pytest.fixture
def adapter(tuned, tmp_path):
    """The folder of an adapter alone, and what its encoder reads."""

    def make(kind="bert", **options):
        tower, items = tuned(kind, mode="lora", **options)
        tower.save_pretrained(tmp_path / "adapter", merge=False)
        return tmp_path / "adapter", items

    return make


def rows(folder, items):
    return load_encoder(folder, device="cpu").encode(items).values


@pytest.mark.parametrize("kind", KINDS)
def test_a_merged_folder_gives_the_rows_of_the_adapter_without_its_base(
    kind, adapter, norms, tmp_path
):
    folder, items = adapter(kind, whole=norms[kind])
    save_merged(folder, tmp_path / "whole")
    expected = rows(folder, items)
    assert not (tmp_path / "whole" / "adapter_config.json").exists()
    assert "adapter" not in (tmp_path / "whole" / "preset.yaml").read_text()
    shutil.rmtree(folder)
    np.testing.assert_allclose(rows(tmp_path / "whole", items), expected, atol=1e-6)


def test_sentence_transformers_loads_a_merged_folder(adapter, tmp_path):
    from sentence_transformers import SentenceTransformer

    folder, texts = adapter(hidden=5)
    save_merged(folder, tmp_path / "whole")
    theirs = SentenceTransformer(str(tmp_path / "whole"), device="cpu").encode(texts)
    np.testing.assert_allclose(theirs, rows(folder, texts), atol=1e-5)


def test_an_adapter_is_tuned_on_once_it_is_merged(adapter, tmp_path, tune):
    folder, texts = adapter(hidden=3)
    with pytest.raises(EncoderError, match="cannot be trained on") as caught:
        load_tower(folder, tune())
    assert f"mmalign.encoders.tuning.save_merged('{folder}', OUTPUT)" in str(caught.value)
    save_merged(folder, tmp_path / "whole")
    tower = load_tower(tmp_path / "whole", tune(mode="head", dim=6))
    with torch.no_grad():
        ours = tower(tower.collate(texts, training=False).inputs).numpy()
    np.testing.assert_allclose(ours, rows(folder, texts), atol=1e-5)


def test_what_cannot_be_merged(adapter, tmp_path, bert_folder):
    with pytest.raises(EncoderError, match=r"no adapter to merge.*tinybert.*merge: false"):
        save_merged(bert_folder, tmp_path / "whole")
    base = shutil.copytree(bert_folder, tmp_path / "base")
    folder, _ = adapter(source=base)
    shutil.rmtree(base)
    with pytest.raises(EncoderError, match=r"the base of the adapter in .*/adapter is not there"):
        save_merged(folder, tmp_path / "whole")
    assert not (tmp_path / "whole").exists()


def test_a_full_disk_leaves_the_adapter_whole(adapter):
    folder, texts = adapter()
    expected = rows(folder, texts)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (700, hard))
    try:
        with pytest.raises(DataError, match="free space"):
            save_merged(folder, folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    np.testing.assert_array_equal(rows(folder, texts), expected)
    save_merged(folder, folder)  # in its own place, if that is wished
    np.testing.assert_allclose(rows(folder, texts), expected, atol=1e-6)


@pytest.mark.parametrize("layers", [None, 1])
def test_an_adapter_says_how_peft_reads_texts_with_it(
    layers, adapter, tmp_path, bert_folder, monkeypatch
):
    own = tmp_path / "own.yaml"
    own.write_text(f"library: transformers\nmodality: text\nfolder: {bert_folder}\n")
    if layers:
        own.write_text(own.read_text() + f"layers: {layers}\n")
    folder, texts = adapter(source=own, dim=None)
    _, merging, reading = (folder / "README.md").read_text().split("```python\n")
    monkeypatch.chdir(Path(folder).parent)
    told: dict = {}
    exec(reading.partition("```")[0], told)
    with torch.no_grad():
        hidden = [
            told["model"](**told["tokenizer"](text, return_tensors="pt")).last_hidden_state[0]
            for text in texts
        ]
    got = torch.stack([tokens.mean(0) for tokens in hidden])
    np.testing.assert_allclose(got, rows(folder, texts), atol=1e-5)
    exec(merging.partition("```")[0], {})
    np.testing.assert_allclose(rows("adapter-merged", texts), rows(folder, texts), atol=1e-6)


def test_adapters_of_pictures_have_no_tokenizer_to_show(adapter):
    folder, _ = adapter("timm")
    text = (folder / "README.md").read_text()
    assert "save_merged" in text
    assert "AutoTokenizer" not in text
