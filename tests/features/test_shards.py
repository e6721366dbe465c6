from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmalign.features.shards import ShardError, read_keys, read_values, write_shard

KEYS = [bytes([i]) * 32 for i in range(3)]
VALUES = np.arange(12, dtype=np.float32).reshape(3, 4)


def test_a_shard_gives_back_what_it_took(tmp_path):
    path = write_shard(tmp_path, KEYS, VALUES)
    assert read_keys(path) == (KEYS, 4)
    np.testing.assert_array_equal(read_values(path), VALUES)
    assert list(tmp_path.iterdir()) == [path]


def test_names_are_unique(tmp_path):
    assert len({write_shard(tmp_path, KEYS, VALUES) for _ in range(5)}) == 5


def test_keys_without_values_are_refused(tmp_path):
    with pytest.raises(ShardError, match="do not fit"):
        read_keys(write_shard(tmp_path, KEYS, VALUES[:2]))


@given(data=st.data())
def test_any_cut_or_changed_byte_is_noticed(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("shard")
    path = write_shard(folder, KEYS, VALUES)
    whole = path.read_bytes()
    if data.draw(st.booleans(), label="cut"):
        path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    else:
        at = data.draw(st.integers(0, len(whole) - 1))
        changed = data.draw(st.integers(0, 255).filter(lambda byte: byte != whole[at]))
        path.write_bytes(whole[:at] + bytes([changed]) + whole[at + 1 :])
    try:
        keys, dim = read_keys(path)
    except ShardError:
        return
    # A changed byte of the header may leave its meaning whole, as white space does.
    assert (keys, dim) == (KEYS, 4)
    np.testing.assert_array_equal(read_values(path), VALUES)


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mmalign.features.shards.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_shard(tmp_path, KEYS, VALUES)
    assert list(tmp_path.iterdir()) == []
