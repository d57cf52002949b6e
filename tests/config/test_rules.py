"""The checks that the trainer runs on sections built in Python."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from tdmpc_lab.config.fieldtypes import FieldType, spec_types
from tdmpc_lab.config.rules import RULES, broken_rules, check_agent
from tdmpc_lab.config.schema import AgentConfig, PlannerConfig
from tdmpc_lab.errors import ConfigError


def test_the_defaults_and_whole_numbers_for_numbers_are_fine() -> None:
    check_agent(AgentConfig(), PlannerConfig())
    check_agent(AgentConfig(lr=1, discount=0), PlannerConfig(temperature=1))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"horizon": 0}, "agent.horizon: found 0; allowed: a whole number ≥ 1"),
        ({"horizon": True}, "agent.horizon: found True; allowed: a whole number ≥ 1"),
        ({"horizon": 5.0}, "agent.horizon: found 5.0; allowed: a whole number ≥ 1"),
        ({"horizon": None}, "agent.horizon: found None; allowed: a whole number ≥ 1"),
        ({"lr": math.nan}, "agent.lr: found nan; allowed: a number > 0"),
        ({"lr": "1e-3"}, "agent.lr: found '1e-3'; allowed: a number > 0"),
        ({"bin_high": math.inf}, "agent.bin_high: found inf; allowed: a number"),
        ({"dropout": 1.0}, "agent.dropout: found 1.0; allowed: a number ≥ 0 and < 1"),
        ({"rho": 1.01}, "agent.rho: found 1.01; allowed: a number > 0 and ≤ 1"),
        ({"policy": "x"}, "agent.policy: found 'x'; allowed: one of: squashed_gaussian, clipped_gaussian"),
        ({"latent_dim": 9}, "agent.latent_dim: 9 must be a multiple of agent.simnorm_dim (8)"),
        ({"bin_low": 10.0}, "agent.bin_low: 10.0 must be less than agent.bin_high (10.0)"),
    ],
)
def test_check_agent_names_what_is_wrong(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_agent(replace(AgentConfig(), **changes), PlannerConfig())
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_check_agent_tells_everything_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        check_agent(AgentConfig(horizon=0, latent_dim=9), PlannerConfig(samples=10, elites=20, std_min=0))
    assert [line.split(" ")[0] for line in str(caught.value).splitlines()] == [
        "agent.horizon:",
        "planner.std_min:",
        "planner.elites:",
        "planner.policy_trajectories:",
        "agent.latent_dim:",
    ]


def test_rules_are_about_keys_that_exist() -> None:
    known = {".".join(path) for path in spec_types()}
    assert {key for rule in RULES for key in rule.keys} <= known


def test_rules_skip_what_is_unknown_or_left_open() -> None:
    assert list(broken_rules({})) == []
    assert list(broken_rules({"train.seed_steps": None, "train.steps": 5})) == []
    assert [rule.first for rule in broken_rules({"train.seed_steps": 9, "train.steps": 5})] == ["train.seed_steps"]


@pytest.mark.parametrize(
    ("key", "good", "bad"),
    [
        ("slurm.time", [], ["01:00:00", 3600]),
        ("slurm.setup", [("a",)], ["a", ["a"]]),
        ("slurm.extra", [{"a": 1}], [[]]),
        ("name", ["a", "a" * 80], ["", "a\n", "a" * 81, 5]),
        ("train.device", ["cuda:0"], ["cuda:0\n", "cuda:"]),
        ("env.max_episode_steps", [None, 1], [0, "1"]),
    ],
)
def test_other_types_can_be_checked_too(key: str, good: list[Any], bad: list[Any]) -> None:
    kind = spec_types()[tuple(key.split("."))]
    assert all(kind.accepts(value) for value in good)
    assert not any(kind.accepts(value) for value in bad)


def test_words_for_types_without_a_form() -> None:
    assert [FieldType.of(kind).words() for kind in (bool, str, float, Any)] == [
        "true or false",
        "text",
        "a number",
        "any value",
    ]
    assert FieldType.of(Any).accepts(object())
