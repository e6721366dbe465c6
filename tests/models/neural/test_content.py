from __future__ import annotations

import numpy as np
import pytest
import torch

from mmalign.errors import ConfigError, DataError
from mmalign.interfaces import Feature
from mmalign.models.neural.content import ContentInput


@pytest.fixture
def features(rng):
    present = np.array([True, True, False, True])
    image = rng.normal(size=(4, 3)).astype(np.float32) + 5
    image[~present] = 0
    text = Feature(rng.normal(size=(4, 2)).astype(np.float32), np.ones(4, bool))
    return {"text": text, "image": Feature(image, present)}


WARM = np.array([True, True, True, False])


def test_rows_are_centred_on_warm_items_that_have_the_modality(features):
    rows = ContentInput(()).fit(features, WARM).rows(features)["image"].numpy()
    values = features["image"].values
    for item in (0, 1, 3):
        centred = values[item] - (values[0] + values[1]) / 2
        np.testing.assert_allclose(rows[item], centred / np.linalg.norm(centred), rtol=1e-5)
    assert not rows[2].any()


def test_modalities_stand_side_by_side_in_a_fixed_order(features):
    content = ContentInput(()).fit(features, WARM)
    backwards = dict(reversed(features.items()))
    assert content.dim == 5
    torch.testing.assert_close(content.concatenated(features), content.concatenated(backwards))
    rows = content.rows(features)
    torch.testing.assert_close(
        content.concatenated(features), torch.cat([rows["image"], rows["text"]], dim=1)
    )


def test_named_modalities_alone_are_read(features):
    content = ContentInput(("text",)).fit(features, WARM)
    assert list(content.rows(features)) == ["text"]
    with pytest.raises(ConfigError, match="did you mean 'image'"):
        ContentInput(("imag",)).fit(features, WARM)


def test_a_modality_that_is_not_passed_is_absent(features):
    content = ContentInput(()).fit(features, WARM)
    rows = content.rows({"text": features["text"]})
    assert rows["image"].shape == (4, 3)
    assert not rows["image"].any()


def test_another_width_or_no_content_is_refused(features):
    content = ContentInput(()).fit(features, WARM)
    with pytest.raises(DataError, match="must be 2 wide"):
        content.rows({"text": features["image"]})
    nothing = Feature(np.zeros((4, 2), np.float32), np.zeros(4, bool))
    with pytest.raises(DataError, match="no warm item has any content"):
        ContentInput(()).fit({"text": nothing}, WARM)


def test_a_modality_of_cold_items_alone_is_not_used(features):
    late = Feature(np.ones((4, 2), np.float32), ~WARM)
    assert list(ContentInput(()).fit({**features, "late": late}, WARM).means) == ["image", "text"]
