from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mmalign.encoders import load_encoder
from mmalign.encoders.projection import Projection, read_projection, write_projection
from mmalign.errors import EncoderError

TEXTS = ["a red cup", "tea and cake", "blue"]


@pytest.fixture
def saved(bert_folder, tmp_path):
    """Save modules after the body as sentence-transformers does."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    def save(*modules: torch.nn.Module, pooling: str = "mean", **more: object):
        torch.manual_seed(0)
        body = [Transformer(str(bert_folder)), Pooling(16, pooling_mode=pooling)]
        model = SentenceTransformer(modules=[*body, *modules], device="cpu", **more)
        model.save(str(tmp_path / "st"))
        return model, tmp_path / "st"

    return save


@pytest.mark.parametrize("activation", [None, torch.nn.Tanh(), torch.nn.GELU()])
def test_dense_layers_of_a_plain_sentence_model(saved, activation):
    from sentence_transformers.base.modules import Dense, Normalize

    layers = Dense(16, 8, activation_function=activation), Dense(8, 3, bias=False), Normalize()
    theirs, folder = saved(*layers)
    ours = load_encoder(folder, device="cpu")
    assert (ours.dim, ours.normalize) == (3, True)
    np.testing.assert_allclose(ours.encode(TEXTS).values, theirs.encode(TEXTS), atol=1e-5)
    assert ours.encode([""]).values.shape == (1, 3)


def test_the_default_prompt_of_a_sentence_model(saved):
    theirs, folder = saved(prompts={"item": "query: "}, default_prompt_name="item")
    ours = load_encoder(folder, device="cpu")
    assert ours.prefix == "query: "
    np.testing.assert_allclose(ours.encode(TEXTS).values, theirs.encode(TEXTS), atol=1e-5)


def test_the_fingerprint_covers_dense_layers(saved):
    from safetensors.torch import load_file, save_file
    from sentence_transformers.base.modules import Dense

    _, folder = saved(Dense(16, 8))
    before = load_encoder(folder, lazy=True).fingerprint
    weights = load_file(folder / "2_Dense" / "model.safetensors")
    save_file({k: v + 1 for k, v in weights.items()}, folder / "2_Dense" / "model.safetensors")
    assert load_encoder(folder, lazy=True).fingerprint != before


def test_pooling_that_is_not_known_is_refused(saved):
    _, folder = saved(pooling="max")
    with pytest.raises(EncoderError, match=r"does not pool as.*got 'max'"):
        load_encoder(folder)


@pytest.mark.parametrize(
    "names",
    [
        ["Transformer", "Pooling", "Normalize", "Dense"],
        ["Transformer", "Dense", "Pooling"],
        ["Transformer", "WeightedLayerPooling", "Pooling"],
        ["StaticEmbedding"],
    ],
)
def test_modules_in_another_order_are_refused(tmp_path, names):
    modules = [{"idx": i, "path": f"{i}_{n}", "type": f"x.{n}"} for i, n in enumerate(names)]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(EncoderError, match="is no transformer with pooling"):
        read_projection(tmp_path)


@pytest.mark.parametrize(
    "more",
    [
        {"activation_function": "os.system"},
        {"use_residual": True},
        {"module_input_name": "token_embeddings"},
    ],
)
def test_dense_layers_that_do_something_else_are_refused(tmp_path, more):
    write_projection(tmp_path, Projection(torch.nn.Linear(4, 2), torch.nn.Identity()))
    path = tmp_path / "2_Dense" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | more))
    with pytest.raises(EncoderError, match="does what mmalign does not know"):
        read_projection(tmp_path)


def test_layers_come_back_as_they_were_written(tmp_path: Path):
    linear = torch.nn.Linear(4, 6), torch.nn.Linear(6, 2, bias=False)
    projection = Projection(linear[0], torch.nn.GELU(), linear[1], torch.nn.Identity())
    assert write_projection(tmp_path, projection) == ["2_Dense", "3_Dense"]
    again = read_projection(tmp_path)
    rows = torch.randn(3, 4)
    assert torch.equal(again(rows), projection(rows))
    assert again.dim == 2
    (tmp_path / "3_Dense" / "model.safetensors").unlink()
    with pytest.raises(EncoderError, match="has no weights"):
        read_projection(tmp_path)


def test_a_folder_without_layers(tmp_path):
    assert read_projection(tmp_path) is None
