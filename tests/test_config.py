"""Frozen dataclasses to and from plain values."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mmalign.config import from_dict, load_yaml, merge, parse_overrides, to_dict
from mmalign.data.config import AttributeConfig, DataConfig
from mmalign.data.splits import SplitConfig
from mmalign.errors import ConfigError
from mmalign.experiment import EvaluationConfig, ExperimentConfig, TrainingConfig
from mmalign.models import MODELS, ModelConfig
from mmalign.models.aligned import AlignedConfig
from mmalign.models.closed_form import CollectiveConfig, KernelRidgeConfig
from mmalign.models.kernel import KernelConfig

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
columns = names.filter(lambda n: n not in ("text", "image"))
positive = st.floats(1e-6, 1e6)


@dataclasses.dataclass(frozen=True)
class Inner:
    rate: float = 0.1
    kind: Literal["a", "b"] = "a"


@dataclasses.dataclass(frozen=True)
class Outer:
    needed: int
    inner: Inner = dataclasses.field(default_factory=Inner)
    many: dict[str, Inner] = dataclasses.field(default_factory=dict)
    names: tuple[str, ...] = ()
    numbers: Sequence[float] = ()
    maybe: int | None = None
    either: float | str | None = None
    flag: bool = False
    path: Path = Path()
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)


kernels = st.builds(
    KernelConfig,
    kind=st.sampled_from(["product", "sum"]),
    weights=st.dictionaries(names, st.floats(0, 10)),
    modalities=st.lists(names).map(tuple),
    landmarks=st.integers(1, 10**6),
    rank=st.integers(1, 10**6),
)
ridge = {"l2": positive, "content_weight": positive, "regularization": positive, "kernel": kernels}
experiments = st.builds(
    ExperimentConfig,
    seed=st.integers(0, 2**31),
    data=st.builds(
        DataConfig,
        path=names,
        items=st.none() | names,
        users=st.none() | names,
        text=st.lists(names).map(tuple),
        image=st.none() | names,
        attributes=st.dictionaries(
            columns,
            st.builds(
                AttributeConfig,
                kind=st.sampled_from(["category", "multi", "number", "date"]),
                column=st.none() | names,
                pattern=st.sampled_from([None, r"\((\d{4})\)"]),
                width=st.none() | positive,
            ),
            max_size=3,
        ),
        positive=st.sampled_from([None, "rating >= 3.5", "event == 'buy'"]),
        split=st.builds(
            SplitConfig,
            kind=st.sampled_from(["random", "global_time", "cold_items"]),
            valid=st.floats(0, 0.4),
            test=st.floats(0, 0.4),
        ),
    ),
    encoders=st.dictionaries(st.sampled_from(["text", "image"]), names),
    cache=names,
    model=st.builds(
        ModelConfig,
        name=st.sampled_from(sorted(MODELS)),
        aligned=st.builds(
            AlignedConfig, learning_rate=positive, teacher=st.builds(CollectiveConfig, **ridge)
        ),
        kernel_ridge=st.builds(KernelRidgeConfig, **ridge),
    ),
    training=st.builds(TrainingConfig, monitor=names, patience=st.integers(1, 100)),
    trainer=st.dictionaries(names, st.none() | st.booleans() | st.integers() | names, max_size=3),
    evaluation=st.builds(EvaluationConfig, ks=st.lists(st.integers(1, 100), min_size=1).map(tuple)),
)


@settings(max_examples=40)
@given(config=experiments)
def test_an_experiment_survives_yaml_and_json(config: ExperimentConfig) -> None:
    plain = to_dict(config)
    assert from_dict(ExperimentConfig, plain) == config
    assert from_dict(ExperimentConfig, json.loads(json.dumps(plain))) == config
    assert from_dict(ExperimentConfig, yaml.safe_load(yaml.safe_dump(plain))) == config


def paths_of(plain: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every key of a nested mapping, as the steps that lead to it."""
    if not isinstance(plain, dict):
        return []
    return [
        found
        for key, value in plain.items()
        for found in [(*path, key), *paths_of(value, (*path, key))]
    ]


@given(data=st.data())
def test_a_misspelt_key_at_any_depth_names_itself_and_the_nearest(data: st.DataObject) -> None:
    plain = to_dict(ExperimentConfig())
    *parents, key = data.draw(st.sampled_from(paths_of(plain)))
    at = data.draw(st.integers(0, len(key) - 1))
    wrong = key[:at] + "_" + key[at:]
    section = plain
    for parent in parents:
        section = section[parent]
    section[wrong] = section.pop(key)
    with pytest.raises(ConfigError) as caught:
        from_dict(ExperimentConfig, plain)
    assert f"unknown key '{'.'.join([*parents, wrong])}': did you mean '{key}'?" in str(
        caught.value
    )


class TestTypes:
    def build(self, **values: Any) -> Outer:
        return from_dict(Outer, {"needed": 1, **values})

    def test_scalars(self) -> None:
        assert self.build(inner={"rate": 1}).inner.rate == 1.0
        assert type(self.build(inner={"rate": 1}).inner.rate) is float
        assert self.build(names=["a", 7]).names == ("a", "7")
        assert self.build(numbers=[1, "2e1"]).numbers == (1.0, 20.0)
        assert self.build(path="x/y").path == Path("x/y")
        assert self.build(flag=True).flag is True

    def test_yaml_reads_1e_3_as_a_text(self) -> None:
        assert yaml.safe_load("rate: 1e-3") == {"rate": "1e-3"}
        assert self.build(inner=yaml.safe_load("rate: 1e-3")).inner.rate == 0.001

    def test_optional(self) -> None:
        assert self.build(maybe=None).maybe is None
        assert self.build(maybe=3).maybe == 3
        assert self.build(either="2020-01-01").either == "2020-01-01"
        assert self.build(either=7.5).either == 7.5
        assert self.build(either=7).either == 7.0

    def test_a_day_that_yaml_made_a_date(self) -> None:
        plain = yaml.safe_load("either: 2020-01-31")
        assert self.build(**plain).either == "2020-01-31"

    def test_sections(self) -> None:
        assert self.build(inner=None).inner == Inner()
        assert self.build(inner=Inner(rate=3)).inner == Inner(rate=3)
        assert self.build(many={"x": {"rate": 2}, 3: None}).many == {
            "x": Inner(rate=2.0),
            "3": Inner(),
        }
        assert self.build(extra={"a": [1, {"b": None}]}).extra == {"a": [1, {"b": None}]}

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"needed": "x"}, "needed must be of type int (got 'x')"),
            ({"needed": True}, "needed must be of type int (got True)"),
            ({"needed": 1.5}, "needed must be of type int (got 1.5)"),
            ({"needed": None}, "needed is empty: give a value of type int"),
            ({"inner": {"rate": "fast"}}, "inner.rate must be of type float (got 'fast')"),
            ({"inner": {"rate": True}}, "inner.rate must be of type float (got True)"),
            ({"inner": {"rate": [1]}}, "inner.rate must be of type float (got [1])"),
            ({"inner": 3}, "inner must be a mapping (got 3)"),
            (
                {"inner": {"kind": "aa"}},
                "inner.kind has no such choice (got 'aa'): did you mean 'a'",
            ),
            ({"inner": {"kind": ["a"]}}, "inner.kind has no such choice"),
            ({"many": {"x": {"rte": 1}}}, "unknown key 'many.x.rte': did you mean 'rate'"),
            ({"many": []}, "many must be a mapping"),
            ({"names": "abc"}, "names must be a list (got 'abc')"),
            ({"names": [["a"]]}, "names[0] must be of type str"),
            ({"names": [{"title": None}]}, "put quotes around it, on a command line '\"{...}\"'"),
            ({"numbers": [1, "x"]}, "numbers[1] must be of type float (got 'x')"),
            ({"maybe": "x"}, "maybe must be of type int (got 'x')"),
            ({"flag": 1}, "flag must be of type bool (got 1)"),
            ({"flag": "yes"}, "flag must be of type bool (got 'yes')"),
            ({"path": 3}, "path must be of type Path"),
            ({"extra": 3}, "extra must be a mapping"),
        ],
    )
    def test_wrong_types(self, values: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError) as caught:
            self.build(**values)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_missing_key(self) -> None:
        with pytest.raises(ConfigError, match="missing key 'needed'"):
            from_dict(Outer, {})
        with pytest.raises(ConfigError, match=r"missing key 'a\.b\.needed'"):
            from_dict(Outer, None, where="a.b")
        with pytest.raises(ConfigError, match="the config must be a mapping"):
            from_dict(Outer, [1])  # type: ignore[arg-type]

    def test_to_plain_values(self) -> None:
        plain = to_dict(self.build(path="x", names=["a"], many={"k": {}}))
        assert plain["path"] == "x"
        assert plain["names"] == ["a"]
        assert plain["many"] == {"k": {"rate": 0.1, "kind": "a"}}


class TestYaml:
    def test_reads_a_mapping(self, tmp_path: Path) -> None:
        (tmp_path / "c.yaml").write_text("a: {b: [1, ü]}\n", encoding="utf-8")
        assert load_yaml(tmp_path / "c.yaml") == {"a": {"b": [1, "ü"]}}
        (tmp_path / "c.yaml").write_text("# nothing\n")
        assert load_yaml(str(tmp_path / "c.yaml")) == {}

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("a: 1\nb: {c: 1, c: 2}\n", "line 2 (got \"key 'c' is given twice\")"),
            ("a: 1\nb: [1\nc: 2\n", "line 3"),
            ("a:\n\tb: 1\n", "line 2"),
        ],
    )
    def test_the_line_that_is_wrong_is_named(self, tmp_path: Path, text: str, message: str) -> None:
        (tmp_path / "c.yaml").write_text(text)
        with pytest.raises(ConfigError, match=re.escape(message)):
            load_yaml(tmp_path / "c.yaml")

    def test_a_key_may_override_one_that_is_merged_in(self, tmp_path: Path) -> None:
        (tmp_path / "c.yaml").write_text("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\n")
        assert load_yaml(tmp_path / "c.yaml")["b"] == {"x": 3, "y": 2}

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"a: [1", "cannot read"),
            (b"\xff\xfe\xfa", "cannot read"),
            (b"a: 2020-13-45", "cannot read"),
            (b"!!python/object/apply:os.getcwd []", "cannot read"),
            (b"- 1", "holds no mapping"),
        ],
    )
    def test_what_cannot_be_read(self, tmp_path: Path, content: bytes, message: str) -> None:
        (tmp_path / "c.yaml").write_bytes(content)
        with pytest.raises(ConfigError, match=message) as caught:
            load_yaml(tmp_path / "c.yaml")
        assert "\n" not in str(caught.value)

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="not found"):
            load_yaml(tmp_path / "none.yaml")
        with pytest.raises(ConfigError, match="cannot read"):
            load_yaml(tmp_path)


class TestOverrides:
    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            ([], {}),
            (["--a", "1"], {"a": 1}),
            (["--a=1"], {"a": 1}),
            (["--a.b.c", "x", "--a.b.d=[1, 2]"], {"a": {"b": {"c": "x", "d": [1, 2]}}}),
            (["--a", "-1"], {"a": -1}),
            (["--a="], {"a": None}),
            (["--a=b=c"], {"a": "b=c"}),
            (["--a=--b"], {"a": "--b"}),
            (["--a", "rating >= 3.5"], {"a": "rating >= 3.5"}),
            (["--a", "@handle"], {"a": "@handle"}),  # no YAML: taken as it is
            (["--a", "2020-13-45"], {"a": "2020-13-45"}),
            (["--a", "1", "--a", "2"], {"a": 2}),
            (["--a", "{b: 1}", "--a.c", "2"], {"a": {"b": 1, "c": 2}}),
            (["--encoders.text.title", "a"], {"encoders": {"text.title": "a"}}),
            (["--a.weights.text.title@x", "2"], {"a": {"weights": {"text.title@x": 2}}}),
        ],
    )
    def test_parses(self, arguments: list[str], expected: dict[str, Any]) -> None:
        assert parse_overrides(arguments) == expected

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["a", "1"], "unexpected argument .got 'a'"),
            (["-a", "1"], "unexpected argument .got '-a'"),
            (["--a"], "option --a has no value"),
            (["--a", "--b", "1"], "option --a has no value"),
            (["--a", "1", "--a.b", "2"], "--a.b sets a key below a value .got 1"),
        ],
    )
    def test_refuses(self, arguments: list[str], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            parse_overrides(arguments)


nested = st.recursive(
    st.integers(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner), max_leaves=8
)
mappings = st.dictionaries(st.sampled_from("abc"), nested)


class TestMerge:
    @given(base=mappings, over=mappings)
    def test_the_upper_layer_wins_leaf_by_leaf(
        self, base: dict[str, Any], over: dict[str, Any]
    ) -> None:
        copies = json.dumps([base, over])
        merged = merge(base, over)
        assert json.dumps([base, over]) == copies
        for key in {*base, *over}:
            if key not in over:
                assert merged[key] == base[key]
            elif isinstance(over[key], dict) and isinstance(base.get(key), dict):
                assert merged[key] == merge(base[key], over[key])
            else:
                assert merged[key] == over[key]

    @given(base=mappings)
    def test_nothing_and_itself_change_nothing(self, base: dict[str, Any]) -> None:
        assert merge(base, {}) == merge({}, base) == merge(base, base) == base
