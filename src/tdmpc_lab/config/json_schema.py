"""The JSON schema of a spec file, for completion and checks in an editor."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

from tdmpc_lab.config.fieldtypes import bare_number_keys, section_types
from tdmpc_lab.config.schema import Spec
from tdmpc_lab.config.serialize import plain
from tdmpc_lab.config.validation import adapter

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """The schema of the file as a user writes it: `name` may be missing, `extends` may be there.

    A section that may be off takes `false` and `true`, a `Ramp` takes a bare number, durations are texts. What has no
    default is required of files that extend no other.
    """
    schema = adapter().json_schema()
    definitions = schema.pop("$defs")
    required = _amend(Spec, schema, definitions)
    required["required"].remove("name")
    extends = {
        "type": "string",
        "description": "Another spec file, relative to this one; the values here are merged over its values.",
    }
    schema["properties"] = {"extends": extends, **schema["properties"], "sweep": _sweep_schema()}
    return {
        "$schema": _DIALECT,
        **schema,
        "title": "tdmpc-lab spec",
        "if": {"not": {"required": ["extends"]}},
        "then": required,
        "$defs": definitions,
    }


def _sweep_schema() -> dict[str, Any]:
    """The forms of `sweep`; the values are checked by the loader alone."""
    values = {"type": "array", "minItems": 1}
    columns = {"type": "object", "minProperties": 1, "additionalProperties": values}
    return {
        "description": "Several jobs of one spec: a grid of keys with lists of values, lists that belong together "
        "below `zip`, or a list of rows of keys with values. `off` for none.",
        "anyOf": [
            {"const": False},
            {**columns, "properties": {"zip": columns}},
            {"type": "array", "minItems": 1, "items": {"type": "object"}},
        ],
        "examples": [{"agent.horizon": [4, 6, 8], "train.seed": [0, 1, 2]}],
    }


def _amend(section: type, schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Fit one section's schema to what the loader takes, and take out what it requires, as a schema."""
    required: dict[str, Any] = {"required": schema.pop("required", []), "properties": {}}
    defaults = {field.name: field.default for field in dataclasses.fields(section)}
    for name, kind in section_types(section).items():
        about = schema["properties"][name]
        if kind.takes(timedelta):
            about["default"] = plain(defaults[name])  # pydantic writes the default as ISO 8601
        if kind.section:
            inside = _amend(kind.section, definitions[kind.section.__name__], definitions)
            if (inside["required"] or inside["properties"]) and not bare_number_keys(kind.section):
                required["properties"][name] = inside
            if kind.nullable:
                about["anyOf"].append({"type": "boolean"})  # off, and on for the defaults
            if bare_number_keys(kind.section):
                schema["properties"][name] = {"anyOf": [{"type": "number"}, about]}
    return required
