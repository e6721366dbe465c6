"""A small shop in files, tiny random encoders, and artefacts fitted on it through the CLI."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from mmalign.cli import main

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *["a", "red", "blue", "cup", "of", "tea", "cake"]]
ITEMS, USERS = 40, 30


@dataclass(frozen=True)
class Shown:
    """What a user sees of one command."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The last line, which must be the only one that is an error."""
        lines = self.err.splitlines()
        assert [line for line in lines if line.startswith("mmalign: error:")] == lines[-1:], lines
        assert "Traceback" not in self.err
        return lines[-1]


@pytest.fixture
def mmalign(capsys: pytest.CaptureFixture[str]) -> Callable[..., Shown]:
    """Run one command in this process."""

    def run(*arguments: object) -> Shown:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Shown(code, *capsys.readouterr())

    return run


def make_items() -> pd.DataFrame:
    kind = np.arange(ITEMS) % 4
    words = np.array(["red", "blue", "tea", "cake"])[kind]
    return pd.DataFrame(
        {
            "item_id": [f"i{n}" for n in range(ITEMS)],
            "title": [f"a {word} cup of {word}" if n % 9 else None for n, word in enumerate(words)],
            "genre": [f"g{k}" for k in kind],
            "year": 1990 + 5 * kind + np.arange(ITEMS) % 3,
            "image": [f"images/{n}.png" if n % 7 else None for n in range(ITEMS)],
            "price": np.arange(ITEMS) * 1.5,
        }
    )


def make_log() -> pd.DataFrame:
    """All that the protocol tells apart.

    Items 0-5 have only test rows, 6-9 only valid rows, 10-11 rows in both, 12 none at all; the
    others have train rows. User 29 has no train row, and user 0 the same item in train and test.
    """
    rng = np.random.default_rng(0)
    rows = []
    for user in range(USERS):
        for item in rng.choice(np.arange(13, ITEMS), 12, replace=False):
            part = rng.choice(["train", "valid", "test"], p=[0.6, 0.2, 0.2])
            rows.append((f"u{user}", f"i{item}", part if user < 29 else "test"))
        rows += [(f"u{user}", f"i{i}", "test") for i in rng.choice(6, rng.integers(3), False)]
        rows += [(f"u{user}", f"i{i}", "valid") for i in rng.choice(np.arange(6, 10), 1)]
    rows += [("u0", "i13", "train"), ("u0", "i13", "test")]
    rows += [("u1", "i10", "valid"), ("u2", "i10", "test"), ("u3", "i11", "valid")]
    rows += [("u4", "i11", "test")]
    log = pd.DataFrame(rows, columns=["user_id", "item_id", "split"])
    return log.drop_duplicates().reset_index(drop=True)


def save_pictures(folder: Path) -> None:
    (folder / "images").mkdir(parents=True)
    colours = np.array([[200, 30, 30], [30, 30, 200], [30, 200, 30], [200, 200, 30]], np.uint8)
    for n in range(ITEMS):
        pixels = np.broadcast_to(colours[n % 4], (24, 24, 3)).copy()
        pixels[: n % 24, : n % 24] //= 2
        Image.fromarray(pixels).save(folder / "images" / f"{n}.png")


def save_text_encoder(folder: Path, seed: int = 0) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertConfig(
        vocab_size=len(WORDS), intermediate_size=16, max_position_embeddings=16, **sizes
    )
    BertModel(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=16,
    ).save_pretrained(folder)


def save_image_encoder(folder: Path) -> None:
    import timm
    from timm.models import save_for_hf

    torch.manual_seed(4)
    model = timm.create_model("test_efficientnet.r160_in1k", pretrained=False)
    save_for_hf(model, folder, safe_serialization=True)


@dataclass(frozen=True)
class House:
    """Where everything is."""

    folder: Path

    @property
    def shop(self) -> Path:
        return self.folder / "shop"

    @property
    def text_encoder(self) -> Path:
        return self.folder / "text-encoder"

    @property
    def image_encoder(self) -> Path:
        return self.folder / "image-encoder"

    @property
    def attributes(self) -> Path:
        """A config that needs no encoder."""
        return self.folder / "attributes.yaml"

    @property
    def everything(self) -> Path:
        """A config of texts, pictures and attributes."""
        return self.folder / "everything.yaml"

    @property
    def art(self) -> Path:
        """Kernel ridge on texts, pictures and attributes."""
        return self.folder / "art"


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    house = House(tmp_path_factory.mktemp("house"))
    save_pictures(house.shop)
    make_items().to_csv(house.shop / "items.csv", index=False)
    make_log().to_csv(house.shop / "interactions.csv", index=False)
    save_text_encoder(house.text_encoder)
    save_image_encoder(house.image_encoder)
    attributes = {
        "data": {
            "path": str(house.shop),
            "attributes": {"genre": {"kind": "category"}, "year": {"kind": "number", "width": 3}},
        },
        "cache": str(house.folder / "cache"),
        "model": {
            "name": "kernel_ridge",
            "aligned": {"embedding_dim": 16, "hidden_dim": 16, "batch_size": 16},
        },
        "trainer": {"max_epochs": 2, "check_val_every_n_epoch": 1, "accelerator": "cpu"},
    }
    everything = {
        **attributes,
        "data": {**attributes["data"], "text": ["title"], "image": "image"},
        "encoders": {"text": str(house.text_encoder), "image": str(house.image_encoder)},
    }
    house.attributes.write_text(yaml.safe_dump(attributes))
    house.everything.write_text(yaml.safe_dump(everything))
    assert main(["fit", "--config", str(house.everything), "--output", str(house.art)]) == 0
    return house


@pytest.fixture
def other_text_encoder(tmp_path: Path) -> Path:
    """A folder with an encoder like the shop's that places texts elsewhere."""
    save_text_encoder(tmp_path / "other", seed=1)
    return tmp_path / "other"


@pytest.fixture
def shop(house: House, tmp_path: Path) -> Path:
    """A copy of the shop that a test may spoil."""
    return Path(shutil.copytree(house.shop, tmp_path / "shop"))


@pytest.fixture
def art(house: House, tmp_path: Path) -> Path:
    """A copy of the artefact that a test may spoil."""
    return Path(shutil.copytree(house.art, tmp_path / "art"))


@pytest.fixture(scope="session")
def log() -> pd.DataFrame:
    return make_log()


@pytest.fixture(scope="session")
def items() -> pd.DataFrame:
    return make_items()
