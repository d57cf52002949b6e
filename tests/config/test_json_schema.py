"""The schema that editors complete spec files from."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

from tdmpc_lab.config.fieldtypes import section_types, spec_types
from tdmpc_lab.config.json_schema import json_schema
from tdmpc_lab.config.schema import Spec


def properties(schema: dict[str, Any], section: type) -> dict[str, Any]:
    part = schema if section is Spec else schema["$defs"][section.__name__]
    assert part["additionalProperties"] is False
    assert "required" not in part
    return part["properties"]


def test_every_key_is_there_with_a_description() -> None:
    schema = json_schema()
    assert json.loads(json.dumps(schema)) == schema
    sections = [Spec, *(kind.section for kind in spec_types().values() if kind.section)]
    for section in sections:
        found = properties(schema, section)
        assert set(found) - {"extends", "sweep"} == set(section_types(section))
        for name, value in found.items():
            inner = value["anyOf"][-1] if "$ref" not in value and "description" not in value else value  # or a number
            described = inner.get("description") or schema["$defs"][inner["$ref"].split("/")[-1]]["description"]
            assert len(described) > 10, name


def test_ranges_choices_and_defaults() -> None:
    schema = json_schema()
    agent = schema["$defs"]["AgentConfig"]["properties"]
    assert agent["horizon"]["minimum"] == 1
    assert agent["lr"]["exclusiveMinimum"] == 0
    assert agent["policy"]["enum"] == ["squashed_gaussian", "clipped_gaussian"]
    assert agent["latent_dim"]["default"] == 1024
    assert agent["latent_dim"]["description"] == "Width of the latent z; a multiple of `simnorm_dim`."


def test_what_a_file_may_hold_beside_the_spec() -> None:
    schema = json_schema()
    assert next(iter(schema["properties"])) == "extends"
    assert {"type": "boolean"} in schema["properties"]["eval"]["anyOf"]
    # Required of a file that extends no other: the environment's id, but not the name.
    assert schema["if"] == {"not": {"required": ["extends"]}}
    container = {"required": ["image"], "properties": {}}
    assert schema["then"] == {
        "required": ["env"],
        "properties": {
            "env": {"required": ["id"], "properties": {}},
            "slurm": {"required": [], "properties": {"container": container}},
        },
    }


def test_durations_are_texts() -> None:
    time = json_schema()["$defs"]["SlurmConfig"]["properties"]["time"]
    assert time["type"] == "string"
    assert time["default"] == "1-00:00:00"
    assert all(re.search(time["pattern"], text) for text in ("04:00:00", "1-12:00:00", time["default"]))
    assert not any(re.search(time["pattern"], text) for text in ("90", "1:30", "1:60:00"))


def test_two_calls_do_not_share_anything() -> None:
    first = json_schema()
    first["$defs"].clear()
    assert json_schema()["$defs"]


def test_every_section_forbids_unknown_keys() -> None:
    for kind in spec_types().values():
        if kind.section:
            assert dataclasses.is_dataclass(kind.section)
            assert kind.section.__pydantic_config__["extra"] == "forbid"  # type: ignore[attr-defined]
