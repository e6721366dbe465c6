from __future__ import annotations

import json

from mmalign.encoders import available_presets


def test_doctor_says_what_is_here(mmalign):
    found = json.loads(mmalign("doctor", "--json").out)
    assert set(found) == {"versions", "devices", "encoders"}
    assert found["versions"]["torch"]
    assert "cpu" in found["devices"]
    assert set(found["encoders"]) == set(available_presets())
    for state in found["encoders"].values():
        assert state.startswith(("ready, from ", "not here: "))


def test_doctor_for_people(mmalign):
    shown = mmalign("doctor")
    assert shown.code == 0
    assert shown.err == ""
    assert {"versions", "devices", "encoders"} <= set(shown.out.splitlines())
    assert "  minilm " in shown.out
