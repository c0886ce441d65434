"""Configurations survive JSON, refuse what they do not know, and take settings from a command line."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import pytest

from bottega.config import dumps, from_json, override, parse_assignments, to_json
from bottega.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Circle:
    radius: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Square:
    side: int = 1


@dataclass(frozen=True, kw_only=True)
class Nested:
    depth: int = 2
    label: str | None = None


@dataclass(frozen=True, kw_only=True)
class Drawing:
    shapes: tuple[Circle | Square, ...]


@dataclass(frozen=True, kw_only=True)
class Everything:
    count: int
    rate: float = 0.5
    on: bool = False
    name: str = "a"
    colour: Literal["red", "blue"] = "red"
    stride: Literal[1, 2] = 1
    shape: Circle | Square = field(default_factory=Circle)
    maybe: Circle | None = None
    limit: int | None = None
    pair: tuple[float, float] = (0.0, 1.0)
    many: tuple[Nested, ...] = ()
    table: Mapping[str, int] = field(default_factory=dict)
    nested: Nested = field(default_factory=Nested)
    derived: int = field(default=7, init=False)

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ConfigError(f"count must not be negative, got {self.count}")


FULL = Everything(
    count=3,
    rate=0.25,
    on=True,
    name="b",
    colour="blue",
    stride=2,
    shape=Square(side=4),
    maybe=Circle(radius=2.0),
    limit=9,
    pair=(0.5, 2.0),
    many=(Nested(depth=1), Nested(label="x")),
    table={"a": 1},
    nested=Nested(depth=5, label="y"),
)


@pytest.mark.parametrize("config", [Everything(count=0), FULL])
def test_a_configuration_comes_back_from_json_text_equal(config):
    assert from_json(Everything, json.loads(dumps(config))) == config


def test_every_dataclass_carries_its_kind_and_derived_fields_stay_out():
    data = to_json(FULL)
    assert data["kind"] == "Everything"
    assert data["shape"] == {"kind": "Square", "side": 4}
    assert "derived" not in data


def test_defaults_fill_what_json_leaves_out():
    assert from_json(Everything, {"count": 1}) == Everything(count=1)


def test_a_whole_number_is_accepted_for_a_float_and_becomes_one():
    assert isinstance(from_json(Everything, {"count": 1, "rate": 1}).rate, float)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"count": 1, "rat": 1},
            "Everything.rat is not a setting of Everything; did you mean rate?",
        ),
        ({"count": 1, "nested": {"dept": 1}}, "Everything.nested.dept .* did you mean depth?"),
        ({}, "lacks count, which Everything needs"),
        ({"count": "1"}, "Everything.count expects int, got '1'"),
        ({"count": True}, "Everything.count expects int, got True"),
        ({"count": 1.0}, "Everything.count expects int"),
        ({"count": 1, "rate": "fast"}, "Everything.rate expects float"),
        ({"count": 1, "rate": True}, "Everything.rate expects float"),
        ({"count": 1, "rate": float("nan")}, "Everything.rate expects a finite number, got nan"),
        ({"count": 1, "rate": 10**400}, "Everything.rate expects float"),
        ({"count": 1, "on": 1}, "Everything.on expects bool"),
        ({"count": 1, "colour": "rde"}, "'rde' is not known; did you mean red?"),
        ({"count": 1, "stride": True}, "True is not known; choose from: 1, 2"),
        ({"count": 1, "stride": 3}, "3 is not known"),
        ({"count": 1, "shape": {"kind": "Cirle"}}, "did you mean Circle?"),
        ({"count": 1, "shape": {"radius": 1.0}}, "kind None is not known"),
        ({"count": 1, "shape": 3}, "Everything.shape expects Circle or Square, got 3"),
        ({"count": 1, "limit": "x"}, "Everything.limit expects int or null"),
        ({"count": 1, "pair": [1.0]}, "Everything.pair expects 2 values, got 1"),
        ({"count": 1, "pair": 1.0}, "Everything.pair expects a list"),
        ({"count": 1, "many": [{"depth": "x"}]}, r"Everything.many\[0\].depth expects int"),
        ({"count": 1, "table": []}, "Everything.table expects an object"),
        ({"count": 1, "table": {"a": "x"}}, "Everything.table.a expects int"),
        ({"count": 1, "nested": 3}, "expects Nested as an object, got 3"),
        ({"kind": "Circle"}, "expects a Everything, got a Circle"),
        ([], "expects Everything as an object"),
    ],
)
def test_json_that_does_not_fit_is_refused_and_the_message_names_the_place(data, message):
    with pytest.raises(ConfigError, match=message):
        from_json(Everything, data)


def test_the_place_can_be_named_by_the_caller():
    with pytest.raises(ConfigError, match=r"train\.count expects int"):
        from_json(Everything, {"count": None}, where="train")


def test_an_optional_member_may_leave_its_kind_out():
    assert from_json(Everything, {"count": 1, "maybe": {"radius": 3.0}}).maybe == Circle(radius=3.0)


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("count", "5", 5),
        ("rate", "1e-4", 1e-4),
        ("rate", ".5", 0.5),
        ("rate", "5.", 5.0),
        ("count", "1_000", 1000),
        ("rate", "2", 2.0),
        ("on", "True", True),
        ("on", "false", False),
        ("name", "some [text]", "some [text]"),
        ("name", "{curly", "{curly"),
        ("colour", "blue", "blue"),
        ("stride", "2", 2),
        ("limit", "none", None),
        ("limit", "4", 4),
        ("shape", '{"kind": "Square", "side": 3}', Square(side=3)),
        ("pair", "[1, 2]", (1.0, 2.0)),
        ("maybe", "null", None),
    ],
)
def test_a_setting_is_read_by_its_own_type(path, text, value):
    assert getattr(override(FULL, {path: text}), path) == value


def test_a_dotted_path_reaches_into_nested_configurations_and_changes_nothing_else():
    changed = override(FULL, {"nested.label": "z", "shape.side": "7"})
    assert changed.nested == Nested(depth=5, label="z")
    assert changed.shape == Square(side=7)
    assert FULL.nested.label == "y"
    assert changed.many == FULL.many


def test_a_number_reaches_one_thing_of_a_list_and_a_star_all_that_have_the_setting():
    changed = override(FULL, {"many.1.depth": "7", "pair.0": "-1"})
    assert changed == replace(
        FULL, many=(Nested(depth=1), Nested(depth=7, label="x")), pair=(-1.0, 2.0)
    )
    assert override(FULL, {"many.*.depth": "9"}).many == (
        Nested(depth=9),
        Nested(depth=9, label="x"),
    )
    assert override(FULL, {"many.0": '{"depth": 3}'}).many[0] == Nested(depth=3)
    mixed = Drawing(shapes=(Circle(), Square(), Circle(radius=2.0)))
    assert override(mixed, {"shapes.*.radius": "5"}).shapes == (
        Circle(radius=5.0),
        Square(),
        Circle(radius=5.0),
    )


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("cuont", "1", "cuont is not a setting of Everything; did you mean count?"),
        ("nested.deep", "1", r"nested\.deep: deep is not a setting of Nested; did you mean depth?"),
        ("count.more", "1", r"count\.more goes deeper"),
        ("many.2.depth", "1", "'2' is none of the 2 things there"),
        ("many.first.depth", "1", "'first' is none of the 2 things"),
        ("many.*.deep", "1", "deep is not a setting of Nested; did you mean depth?"),
        ("many.1.depth.more", "1", "goes deeper"),
        ("pair.0", "x", "pair.0 expects float, got 'x'"),
        ("count", "many", "count expects int, got 'many'"),
        ("count", "-1", "count must not be negative"),
        ("rate", "NaN", "rate expects a finite number"),
        ("rate", "Infinity", "rate expects a finite number"),
        ("stride", "3", "stride: 3 is not known"),
        ("shape", "{", "shape expects"),
        ("shape", "circle", "shape expects Circle or Square, got 'circle'; written as JSON:"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused(path, text, message):
    with pytest.raises(ConfigError, match=message):
        override(FULL, {path: text})


def test_assignments_are_split_at_the_first_equals_sign():
    assert parse_assignments(["a.b=c", " d = e=f "]) == {"a.b": "c", "d": "e=f"}
    for wrong in ("a", "=b", " =b"):
        with pytest.raises(ConfigError, match=r"a\.b=value"):
            parse_assignments([wrong])


@pytest.mark.parametrize("value", [object(), {1, 2}, Everything])
def test_only_plain_values_become_json(value):
    with pytest.raises(ConfigError, match="plain values"):
        to_json(value)


def test_numbers_that_json_cannot_hold_are_refused_when_written():
    with pytest.raises(ConfigError, match="finite"):
        dumps(Circle(radius=float("inf")))
