"""Language models as encoders: cut in the middle, asked by a prompt, read from GGUF files."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mmalign.encoders import PresetConfig, load_encoder, read_preset
from mmalign.encoders.resolve import resolve
from mmalign.encoders.text import TextEncoder, TransformersText
from mmalign.encoders.tuning import load_tower
from mmalign.errors import ConfigError, EncoderError
from mmalign.finetuning import TowerConfig

TEXTS = ["a red cup", "tea", "a blue cup of tea and a red cake", "of"]
SUFFIX = " will like"
HEADS, LAYERS = 2, 3


@pytest.fixture(scope="module")
def llama_folder(tmp_path_factory) -> Path:
    """A tiny Llama with a byte-level tokenizer that has no token to pad with."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("models") / "tinyllama"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        [*TEXTS, SUFFIX] * 3,
        trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=["<end>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")
    wrapped.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(wrapped),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=64,
    )
    LlamaModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def gguf_folder(llama_folder, tmp_path_factory) -> Path:
    """The same model and tokenizer as one file."""
    import json

    from gguf import GGUFWriter
    from transformers import LlamaModel

    folder = tmp_path_factory.mktemp("gguf")
    writer = GGUFWriter(folder / "model.gguf", "llama")
    config = LlamaModel.from_pretrained(llama_folder).config
    writer.add_block_count(LAYERS)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(config.vocab_size)
    told = json.loads((llama_folder / "tokenizer.json").read_text())["model"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(sorted(told["vocab"], key=told["vocab"].get))
    writer.add_token_types([3] + [1] * (config.vocab_size - 1))
    writer.add_token_merges([" ".join(pair) for pair in told["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    names = {
        "embed_tokens": "token_embd",
        "norm": "output_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    for name, tensor in LlamaModel.from_pretrained(llama_folder).state_dict().items():
        block, key = "", name.removesuffix(".weight")
        if key.startswith("layers."):
            _, number, key = key.split(".", 2)
            block = f"blk.{number}."
        values = tensor.numpy()
        if key.endswith(("q_proj", "k_proj")):  # rotary pairs lie side by side there
            halves = values.reshape(HEADS, 2, -1, values.shape[1])
            values = np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(values.shape)
        writer.add_tensor(f"{block}{names[key]}.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    (folder / "asked.yaml").write_text(
        f"library: transformers\nmodality: text\nfolder: {folder}\n"
        f'pooling: last\nlayers: 2\nsuffix: "{SUFFIX}"\n'
    )
    return folder


def by_hand(folder: Path, texts: list[str], layers: int) -> np.ndarray:
    """The whole model, one text at a time: the last token after some layers, normed."""
    from transformers import AutoTokenizer, LlamaModel

    tokenizer, model = AutoTokenizer.from_pretrained(folder), LlamaModel.from_pretrained(folder)
    rows = []
    for text in texts:
        with torch.no_grad():
            found = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True)
            rows.append(model.norm(found.hidden_states[layers])[0, -1])
    return torch.stack(rows).numpy()


def tower(folder: Path, **options) -> TransformersText:
    return TransformersText(str(folder), torch.device("cpu"), **{"pooling": "last", **options})


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("batch_size", [1, 64])
def test_the_last_token_in_the_middle_of_the_model(llama_folder, layers, batch_size):
    encoder = TextEncoder(
        tower(llama_folder, layers=layers),
        fingerprint="f",
        batch_size=batch_size,
        prefix="tea: ",
        suffix=SUFFIX,
    )
    got = encoder.encode(TEXTS).values
    asked = [f"tea: {text}{SUFFIX}" for text in TEXTS]
    np.testing.assert_allclose(got, by_hand(llama_folder, asked, layers), atol=1e-5)


def test_a_text_that_is_cut_keeps_its_suffix(llama_folder):
    model = tower(llama_folder, max_length=8, suffix=SUFFIX)
    tokens, cut = model.tokenize(["tea " * 20 + SUFFIX, "tea" + SUFFIX])
    assert cut == 1
    assert len(tokens[0]) == 8
    assert model.tokenizer.decode(tokens[0]).endswith(SUFFIX)
    assert model.tokenizer.decode(tokens[1]) == "tea" + SUFFIX


def test_a_suffix_stands_before_what_the_tokenizer_puts_last(bert_folder):
    model = tower(bert_folder, max_length=6, suffix=" cake")
    tokens, cut = model.tokenize(["tea tea tea tea tea tea cake", "tea cake"])
    assert cut == 1
    assert len(tokens[0]) == 6
    assert tokens[0][-2:] == tokens[1][-2:]


def test_a_suffix_that_leaves_no_room(llama_folder):
    with pytest.raises(EncoderError, match="leaves no room for a text in 3 tokens"):
        tower(llama_folder, max_length=3, suffix=SUFFIX * 3)


def test_more_layers_than_there_are(llama_folder):
    with pytest.raises(EncoderError, match=rf"has {LAYERS} layers \(got 4\)"):
        tower(llama_folder, layers=4)


def test_no_token_to_pad_with_matters_only_where_pads_are_read(llama_folder):
    assert len(tower(llama_folder).pad([[1, 2], [1]])["input_ids"]) == 2
    with pytest.raises(EncoderError, match="no token to pad with"):
        tower(llama_folder, pooling="mean")


def test_a_gguf_file_is_the_same_model(llama_folder, gguf_folder, capfd):
    encoder = load_encoder(gguf_folder / "asked.yaml", device="cpu")
    got = encoder.encode(TEXTS).values
    assert capfd.readouterr().err == ""
    expected = by_hand(llama_folder, [text + SUFFIX for text in TEXTS], 2)
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_a_tuned_tower_from_a_gguf_file_is_written_whole(gguf_folder, tmp_path, mode):
    model = load_tower(gguf_folder / "asked.yaml", TowerConfig(mode=mode, dim=None))
    with torch.no_grad():
        for parameter in model.trainable()["trunk"]:
            parameter.add_(0.1)
        expected = model(model.collate(TEXTS, training=False).inputs).numpy()
    model.save_pretrained(tmp_path / "tuned")
    got = load_encoder(tmp_path / "tuned", device="cpu").encode(TEXTS).values
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_a_model_with_kinds_of_layers_is_cut_and_written(
    llama_folder, tmp_path, caplog, monkeypatch
):
    from transformers import AutoModel, AutoTokenizer, Qwen3Config, Qwen3Model

    folder = tmp_path / "qwen"
    AutoTokenizer.from_pretrained(llama_folder).save_pretrained(folder)
    shape = {"hidden_size": 32, "intermediate_size": 48, "head_dim": 16, "vocab_size": 300}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "num_hidden_layers": 3}
    Qwen3Model(Qwen3Config(**shape, **heads)).save_pretrained(folder)
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    model = tower(folder, layers=2)
    assert "layers.2" not in caplog.text  # what was left out is no news
    model.core.save_pretrained(tmp_path / "cut")
    assert len(AutoModel.from_pretrained(tmp_path / "cut").layers) == 2


def test_sentence_transformers_takes_the_last_token_too(llama_folder, tmp_path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    asked = tmp_path / "asked.yaml"
    asked.write_text(
        f"library: transformers\nmodality: text\nfolder: {llama_folder}\npooling: last\nlayers: 2\n"
    )
    model = load_tower(asked, TowerConfig(mode="full", dim=None))
    model.save_pretrained(tmp_path / "tuned")
    (tmp_path / "tuned" / "preset.yaml").unlink()  # what its own files say
    got = load_encoder(tmp_path / "tuned", device="cpu").encode(TEXTS).values
    np.testing.assert_allclose(got, by_hand(llama_folder, TEXTS, 2), atol=1e-4)
    other = sentence_transformers.SentenceTransformer(str(tmp_path / "tuned"), device="cpu")
    np.testing.assert_allclose(other.encode(TEXTS), got, atol=1e-4)


def test_weights_that_stand_beside_a_gguf_file_are_taken(llama_folder, gguf_folder, tmp_path):
    preset = PresetConfig("transformers", "text", name="both", folder=tmp_path)
    for number in (1, 2):
        shutil.copy(gguf_folder / "model.gguf", tmp_path / f"{number}.gguf")
    with pytest.raises(EncoderError, match=r"has 2 \.gguf files, not one"):
        resolve(preset)
    shutil.copytree(llama_folder, tmp_path, dirs_exist_ok=True)
    assert resolve(preset).weights == (tmp_path / "model.safetensors",)


def test_other_presets_keep_their_fingerprint():
    assert not {"layers", "suffix"} & read_preset("minilm").behaviour().keys()
    assert {"layers", "suffix"} <= read_preset("smollm2-films").behaviour().keys()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"layers": 0}, "layers must be positive"),
        ({"library": "open_clip", "layers": 2}, "layers is for texts"),
        ({"modality": "image", "suffix": "!"}, "suffix is for texts"),
        ({"modality": "image", "pooling": "last"}, "no last token"),
    ],
)
def test_what_cannot_be_asked(changes, match):
    with pytest.raises(ConfigError, match=match):
        replace(PresetConfig("transformers", "text", name="p"), **changes)
