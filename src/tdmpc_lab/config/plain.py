"""Values handed over in Python, brought into the form that YAML values have."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from tdmpc_lab.config.durations import format_duration
from tdmpc_lab.config.layers import Layer
from tdmpc_lab.yaml_strict import MAX_DEPTH, MAX_KEY, YamlPath, has_surrogate, is_key


def plain_layer(data: Mapping[str, Any], source: str) -> Layer:
    """A layer of plain values; what can't stand in a YAML file is reported in it."""
    layer = Layer(source)
    plain = _plain(layer, data, ())
    if isinstance(plain, dict):
        layer.data = plain
    else:
        layer.report((), f"found {repr(data)[:60]}; allowed: a mapping")
    return layer


def _plain(layer: Layer, value: Any, path: YamlPath) -> Any:
    if len(path) > MAX_DEPTH:
        layer.report(path[:1], f"nested more than {MAX_DEPTH} levels deep")
        return None
    if isinstance(value, Mapping):
        return _plain_mapping(layer, value, path)
    if isinstance(value, list | tuple):
        return [_plain(layer, item, (*path, index)) for index, item in enumerate(value)]
    if isinstance(value, timedelta) and value > timedelta(0) and not value % timedelta(seconds=1):
        return format_duration(value)
    if value is None or isinstance(value, int | float) or (isinstance(value, str) and not has_surrogate(value)):
        return value
    layer.report(path, f"found {repr(value)[:60]}; allowed: text, numbers, true, false, null, lists and mappings")
    return None


def _plain_mapping(layer: Layer, value: Mapping[Any, Any], path: YamlPath) -> dict[str, Any]:
    plain = {}
    for key, item in value.items():
        if is_key(key):
            plain[key] = _plain(layer, item, (*path, key))
        else:
            layer.report((*path, repr(key)[:60]), f"a key must be a text of at most {MAX_KEY} characters")
    return plain
