"""A spec as plain values, as YAML, and flat. Standard library only."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any

from tdmpc_lab.config.durations import format_duration
from tdmpc_lab.config.fieldtypes import spec_types
from tdmpc_lab.config.schema import Spec

_OFF = object()  # a section that is off; null would do, but this is how a user writes it
_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_-]*", re.ASCII)
_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*", re.ASCII)
_NOT_PLAIN = ("null", "true", "false", "yes", "no", "on", "off", "y", "n")
# What JSON leaves as it is and YAML does not take in a file: C1 controls, line separators, marks, surrogates.
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")


def to_dict(spec: Spec) -> dict[str, Any]:
    """Every value in force as plain nested values: durations as text, tuples as lists."""
    return {field.name: plain(getattr(spec, field.name)) for field in dataclasses.fields(spec)}


def plain(value: Any) -> Any:
    """One value of a spec in the same way."""
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def dump_yaml(spec: Spec) -> str:
    """Every value in force as YAML: `load_resolved` reads back an equal spec, and other readers agree."""
    values = to_dict(spec)
    for path, kind in spec_types().items():
        *parents, name = path
        holder = functools.reduce(
            lambda inside, key: inside[key] if isinstance(inside, dict) else None, parents, values
        )
        if kind.section and isinstance(holder, dict) and holder[name] is None:
            holder[name] = _OFF
    return "".join(f"{line}\n" for line in _mapping_lines(values))


def dump_set_yaml(spec: Spec) -> str:
    """Those values that are not the defaults, as YAML: what a spec and its overrides set."""
    return "".join(f"{line}\n" for line in _mapping_lines(_set_values(spec)))


def _set_values(section: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in dataclasses.fields(section):
        value, usual = getattr(section, field.name), _default(field)
        if value == usual:
            continue
        if dataclasses.is_dataclass(value) and (usual is None or dataclasses.is_dataclass(usual)):
            found[field.name] = _set_values(value)
        else:
            found[field.name] = _OFF if value is None and dataclasses.is_dataclass(usual) else plain(value)
    return found


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _mapping_lines(data: Mapping[str, Any]) -> Iterator[str]:
    for key, value in data.items():
        name = _plain_key(key)
        if isinstance(value, dict) and value:
            yield f"{name}:"
            yield from (f"  {line}" for line in _mapping_lines(value))
        elif isinstance(value, list) and value and not _short_list(value):
            yield f"{name}:"
            yield from (f"  - {flow(item)}" for item in value)
        else:
            yield f"{name}: {flow(value)}"


def _short_list(items: list[Any]) -> bool:
    return all(isinstance(item, int | float) for item in items) and len(items) <= 20


def key_word(key: str, value: Any) -> str:
    """`key=value` as an override says it; a section that may be off is `off`, with nothing but its defaults `on`."""
    kind = spec_types().get(tuple(key.split(".")))
    if (
        kind is not None
        and kind.section
        and kind.nullable
        and (value is None or isinstance(value, bool) or value == {})
    ):
        return f"{key}={'off' if value is None or value is False else 'on'}"
    return f"{key}={flow(value, _plain_key)}"


def _quoted(text: str) -> str:
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(text, ensure_ascii=False))


def _plain_key(key: str) -> str:
    return key if _KEY.fullmatch(key) and key.lower() not in _NOT_PLAIN else _quoted(key)


def flow(value: Any, key_text: Callable[[str], str] = _quoted) -> str:
    """The value on one line; `key_text` writes the keys of a mapping."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key_text(key)}: {flow(item, key_text)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(flow(item, key_text) for item in value) + "]"
    if isinstance(value, str):
        simple = _TEXT.fullmatch(value) and value.lower() not in _NOT_PLAIN
        return value if simple else _quoted(value)
    if value is None or value is _OFF or isinstance(value, bool):
        return {None: "null", True: "true", False: "false", _OFF: "off"}[value]
    return _float(value) if isinstance(value, float) else str(value)


def _float(value: float) -> str:
    if math.isnan(value):
        return ".nan"
    if math.isinf(value):
        return ".inf" if value > 0 else "-.inf"
    text = repr(value)
    # 1e-05 is a text to YAML 1.1 readers, 1.0e-05 a number to all.
    return text.replace("e", ".0e") if "e" in text and "." not in text else text


def flatten(nested: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values by dotted key; an empty mapping stays as a value, lists stay whole."""
    return dict(_flat(nested, ""))


def _flat(nested: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in nested.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + str(key), value
