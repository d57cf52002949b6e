"""Settings that are named as the cause of a result: `agent.horizon=18`, checked against the schema."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tdmpc_lab.config.diff import config_hash
from tdmpc_lab.config.layers import merge
from tdmpc_lab.config.loader import spec_from_dict
from tdmpc_lab.config.overrides import parse_overrides
from tdmpc_lab.config.schema import Spec
from tdmpc_lab.config.serialize import to_dict
from tdmpc_lab.config.validation import validate_layer
from tdmpc_lab.errors import SpecError


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
        return config_hash(spec_from_dict(merge(to_dict(spec), layer.data))) == config_hash(spec)
    except SpecError:  # with this value it would be no valid config, so it has another
        return False
