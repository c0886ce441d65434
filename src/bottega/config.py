"""Configurations are frozen dataclasses; this file turns them to strict JSON and back, and applies ``a.b=c``.

A choice is a union of dataclasses. In JSON each of its members carries ``"kind"``, the class's name, so that a reader
knows which one was meant. Unknown keys are refused with the nearest valid one.
"""

import contextlib
import dataclasses
import json
import math
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from bottega.errors import ConfigError, nearest

T = TypeVar("T")
Json = Any
"""What ``json.loads`` gives: dict, list, str, int, float, bool or None."""


def to_json(config: Any) -> Json:
    """A configuration as plain JSON values; every dataclass carries its class name as ``kind``."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        fields = {
            f.name: to_json(getattr(config, f.name)) for f in dataclasses.fields(config) if f.init
        }
        return {"kind": type(config).__name__, **fields}
    if isinstance(config, (list, tuple)):
        return [to_json(item) for item in config]
    if isinstance(config, Mapping):
        return {str(key): to_json(value) for key, value in config.items()}
    if isinstance(config, float) and not math.isfinite(config):
        raise ConfigError(f"a configuration holds finite numbers, got {config}")
    if config is None or isinstance(config, (bool, int, float, str)):
        return config
    raise ConfigError(f"a configuration holds plain values, got {type(config).__name__}")


def from_json(cls: type[T], data: Json, *, where: str = "") -> T:
    """Build a ``cls`` from plain JSON values.

    Args:
        cls: A frozen dataclass.
        data: What `to_json` gave.
        where: How error messages name this place, for example ``train``.

    Raises:
        ConfigError: On an unknown key, a missing one, or a value of the wrong type.
    """
    return typing.cast(T, _decode(cls, data, where or cls.__name__))


def dumps(config: Any) -> str:
    """The configuration as indented JSON text."""
    return json.dumps(to_json(config), indent=2, allow_nan=False) + "\n"


def override(config: T, assignments: Mapping[str, str]) -> T:
    """A copy of ``config`` with settings replaced, each given as a dotted path and a text value.

    The text is read by the setting's own type: ``{"train.batch_size": "64"}``. A union member or a nested
    dataclass is replaced by JSON text: ``{"train.schedule": '{"kind": "Constant"}'}``. In a list a number from 0
    names one thing, and ``*`` all of those that have the setting: ``{"network.levels.*.attention.depth": "2"}``.

    Raises:
        ConfigError: For an unknown setting (naming the nearest) or a value that does not fit its type.
    """
    for path, text in assignments.items():
        config = _override_one(config, path.split("."), text, path)
    return config


def parse_assignments(items: Iterable[str]) -> dict[str, str]:
    """Read ``a.b=c`` texts, as the command line's ``--set`` takes them."""
    pairs: dict[str, str] = {}
    for item in items:
        path, equals, text = item.partition("=")
        if not equals or not path.strip():
            raise ConfigError(f"a setting is written a.b=value, got {item!r}")
        pairs[path.strip()] = text.strip()
    return pairs


def _override_one(config: T, path: list[str], text: str, whole: str) -> T:
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise ConfigError(f"{whole} goes deeper than the configuration does")
    name = path[0]
    hints = _hints(type(config))
    if name not in hints:
        raise ConfigError(
            f"{whole}: {name} is not a setting of {type(config).__name__}{nearest(name, hints)}"
        )
    value = getattr(config, name)
    if len(path) == 1:
        value = _decode(hints[name], _read_text(hints[name], text, whole), whole)
    elif isinstance(value, tuple):
        value = _override_some(hints[name], value, path[1:], text, whole)
    else:
        value = _override_one(value, path[1:], text, whole)
    return typing.cast(T, dataclasses.replace(config, **{name: value}))


def _override_some(
    hint: Any, items: tuple[Any, ...], path: list[str], text: str, whole: str
) -> tuple[Any, ...]:
    """A list with a setting replaced in one of its things, or in all that have it."""
    place, *inner = path
    if place == "*" and items:
        depths = [_depth(item, inner) for item in items]
        # Where none has it, whichever comes nearest says what is wrong.
        wanted = [i for i, depth in enumerate(depths) if depth == max(depths)]
    elif place.isdecimal() and int(place) < len(items):
        wanted = [int(place)]
    else:
        raise ConfigError(
            f"{whole}: {place!r} is none of the {len(items)} things there; they count from 0, and * is all of them"
        )
    changed = list(items)
    for i in wanted:
        if inner:
            changed[i] = _override_one(items[i], inner, text, whole)
            continue
        kinds = next(get_args(o) for o in _options(hint) if get_origin(o) is tuple)
        kind = kinds[0] if kinds[-1] is Ellipsis else kinds[i]
        changed[i] = _decode(kind, _read_text(kind, text, whole), whole)
    return tuple(changed)


def _depth(item: Any, path: list[str]) -> int:
    """How many steps of a path there are in a configuration."""
    steps = 0
    for name in path:
        if not dataclasses.is_dataclass(item) or name not in _hints(type(item)):
            break
        item, steps = getattr(item, name), steps + 1
    return steps


def _read_text(hint: Any, text: str, where: str) -> Json:
    """Text from a command line as the JSON value its type wants; strings need no quotes there."""
    options = _options(hint)
    if type(None) in options and text.lower() in ("none", "null"):
        return None
    if bool in options and text.lower() in ("true", "false"):
        return text.lower() == "true"
    literals = [value for o in options if get_origin(o) is Literal for value in get_args(o)]
    is_structured = any(dataclasses.is_dataclass(o) or get_origin(o) is tuple for o in options)
    wants_text = str in options or any(isinstance(value, str) for value in literals)
    if wants_text and not (is_structured and text.startswith(("{", "["))):
        return text
    for read in (json.loads, *(kind for kind in (int, float) if kind in options)):
        with contextlib.suppress(ValueError):  # numbers as people write them: .5, 5., 1_000_000
            return read(text)
    example = ""
    classes = [_name(option) for option in options if dataclasses.is_dataclass(option)]
    if classes:
        example = f'; written as JSON: {{"kind": "{classes[0]}"}}'
    raise ConfigError(f"{where} expects {_name(hint)}, got {text!r}{example}")


def _decode(hint: Any, data: Json, where: str) -> Any:
    if hint is Any:
        return data
    options = _options(hint)
    if len(options) > 1:
        return _decode_union(options, data, where)
    hint = options[0]
    origin = get_origin(hint)
    if dataclasses.is_dataclass(hint):
        return _decode_dataclass(typing.cast(type, hint), data, where)
    if origin is Literal:
        if not any(type(data) is type(value) and data == value for value in get_args(hint)):
            raise ConfigError(
                f"{where}: {data!r} is not known{nearest(str(data), map(str, get_args(hint)))}"
            )
        return data
    if origin is tuple:
        return _decode_tuple(hint, data, where)
    if (
        origin in (dict, Mapping, types.MappingProxyType)
        or getattr(origin, "__name__", "") == "Mapping"
    ):
        if not isinstance(data, dict):
            raise ConfigError(f"{where} expects an object, got {data!r}")
        value_hint = get_args(hint)[1]
        return {key: _decode(value_hint, value, f"{where}.{key}") for key, value in data.items()}
    return _decode_plain(hint, data, where)


def _decode_plain(hint: Any, data: Json, where: str) -> Any:
    if hint is float and type(data) is int and abs(data) < 2**1023:
        return float(data)
    if hint in (int, float, str, bool, type(None)) or hint is None:
        wanted = type(None) if hint is None else hint
        if wanted is float and type(data) is float and not math.isfinite(data):
            raise ConfigError(f"{where} expects a finite number, got {data!r}")
        if type(data) is wanted:
            return data
    raise ConfigError(f"{where} expects {_name(hint)}, got {data!r}")


def _decode_tuple(hint: Any, data: Json, where: str) -> tuple[Any, ...]:
    if not isinstance(data, (list, tuple)):
        raise ConfigError(f"{where} expects a list, got {data!r}")
    inner = get_args(hint)
    if len(inner) == 2 and inner[1] is Ellipsis:
        return tuple(_decode(inner[0], item, f"{where}[{i}]") for i, item in enumerate(data))
    if len(inner) != len(data):
        raise ConfigError(f"{where} expects {len(inner)} values, got {len(data)}")
    return tuple(
        _decode(h, item, f"{where}[{i}]")
        for i, (h, item) in enumerate(zip(inner, data, strict=True))
    )


def _decode_union(options: list[Any], data: Json, where: str) -> Any:
    if data is None and type(None) in options:
        return None
    classes = {_name(o): o for o in options if dataclasses.is_dataclass(o)}
    if isinstance(data, dict) and classes:
        kind = data.get("kind")
        if kind is None and len(classes) == 1:
            kind = next(iter(classes))
        if kind not in classes:
            raise ConfigError(f"{where}: kind {kind!r} is not known{nearest(str(kind), classes)}")
        return _decode_dataclass(typing.cast(type, classes[kind]), data, where)
    for option in options:
        if dataclasses.is_dataclass(option) or option is type(None):
            continue
        try:
            return _decode(option, data, where)
        except ConfigError:
            continue
    raise ConfigError(f"{where} expects {' or '.join(map(_name, options))}, got {data!r}")


def _decode_dataclass(cls: type, data: Json, where: str) -> Any:
    if not isinstance(data, dict):
        raise ConfigError(f"{where} expects {cls.__name__} as an object, got {data!r}")
    values = dict(data)
    kind = values.pop("kind", cls.__name__)
    if kind != cls.__name__:
        raise ConfigError(f"{where} expects a {cls.__name__}, got a {kind}")
    hints = _hints(cls)
    for key in values:
        if key not in hints:
            raise ConfigError(
                f"{where}.{key} is not a setting of {cls.__name__}{nearest(key, hints)}"
            )
    decoded = {key: _decode(hints[key], value, f"{where}.{key}") for key, value in values.items()}
    missing = [
        f.name
        for f in dataclasses.fields(cls)
        if f.name not in decoded
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{where} lacks {', '.join(missing)}, which {cls.__name__} needs")
    return cls(**decoded)


def _hints(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls) if f.init}


def _options(hint: Any) -> list[Any]:
    if get_origin(hint) in (Union, types.UnionType):
        return [option for member in get_args(hint) for option in _options(member)]
    return [hint]


def _name(hint: Any) -> str:
    options = _options(hint)
    if len(options) > 1:
        return " or ".join(_name(option) for option in options)
    if hint is None or hint is type(None):
        return "null"
    if get_origin(hint) is not None:
        return str(hint).replace("typing.", "")
    return getattr(hint, "__name__", str(hint))


__all__ = ["dumps", "from_json", "override", "parse_assignments", "to_json"]
