"""Settings that are named as the cause of a result: `agent.horizon=18`, checked against the schema."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tdmpc_lab.config.fieldtypes import KeyPath, spec_types
from tdmpc_lab.config.layers import merge
from tdmpc_lab.config.loader import parse_overrides, spec_from_dict
from tdmpc_lab.config.phases import phases_of
from tdmpc_lab.config.schema import Spec
from tdmpc_lab.config.serialize import key_word, to_dict
from tdmpc_lab.config.validation import validate_layer
from tdmpc_lab.errors import SpecError
from tdmpc_lab.text import shorten

_LONGEST = 200


def check_causes(causes: Sequence[str]) -> list[str]:
    """The causes without blanks around key and value.

    Raises SpecError, with every problem, for what is no `key=value`, an unknown key (with the nearest one) and a
    value that the key does not take.
    """
    layer = parse_overrides(causes)
    validate_layer(layer)
    if layer.problems:
        raise SpecError([replace(problem, file="--cause") for problem in layer.problems])
    return ["=".join(part.strip() for part in cause.split("=", 1)) for cause in causes]


def has_setting(spec: Spec, setting: str) -> bool:
    """Whether a config has this `key=value` already, whatever way the value is written in."""
    layer = parse_overrides([setting])
    validate_layer(layer)
    if layer.problems:  # an older version's key
        return False
    try:
        return _canonical(spec_from_dict(merge(to_dict(spec), layer.data))) == _canonical(spec)
    except SpecError:  # with this value it would be no valid config, so it has another
        return False


def other_value(spec: Spec, setting: str) -> str | None:
    """What a config says where a cause that is checked says `key=value`: `agent.horizon=3`.

    None where it has that value, in one of its phases at least, or leaves the value to the job (`auto`, null), which
    may have come to this one.
    """
    phases = [replace(spec, env=phase.env, reward=phase.reward) for phase in phases_of(spec)]
    if any(has_setting(one, setting) for one in (spec, *phases)):
        return None
    key = tuple(part.strip() for part in setting.partition("=")[0].split("."))
    path, value = _deepest(to_dict(spec), key)
    kind = spec_types().get(path)
    is_section = kind is not None and kind.section is not None
    if value == "auto" or (value is None and not is_section):
        return None
    if is_section and isinstance(value, dict) and not setting.partition("=")[2].strip().startswith("{"):
        value = True  # not off as the cause says: that it is on is all there is to say
    return shorten(key_word(".".join(path), value), _LONGEST)


def _deepest(data: dict[str, Any], key: KeyPath) -> tuple[KeyPath, Any]:
    """The key with what stands there; of one in a section that is off, or of an option not given, what is around it."""
    value: Any = data
    for length, part in enumerate(key):
        if not isinstance(value, dict) or part not in value:
            return key[:length], value
        value = value[part]
    return key, value


def _canonical(spec: Spec) -> str:
    """Equal for specs with equal values, those that are no difference between experiments included."""
    return json.dumps(to_dict(spec), sort_keys=True, default=repr)
