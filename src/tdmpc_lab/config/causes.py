"""Settings that are named as the cause of a result: `agent.horizon=18`, checked against the schema."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tdmpc_lab.config.overrides import parse_overrides
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
