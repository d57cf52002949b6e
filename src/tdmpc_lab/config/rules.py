"""Rules that tie two keys of a spec together. Standard library only: the trainer calls them too."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from tdmpc_lab.config.fieldtypes import section_types
from tdmpc_lab.config.schema import AgentConfig, PlannerConfig
from tdmpc_lab.errors import ConfigError


@dataclass(frozen=True)
class Rule:
    """Two keys, what must hold between their values, and why."""

    first: str
    relation: str
    second: str
    holds: Callable[[Any, Any], bool]
    reason: str = ""
    unless: str = ""
    """A switch with which it need not hold."""

    @property
    def keys(self) -> tuple[str, str]:
        return (self.first, self.second)

    def message(self, at: str, shown: Mapping[str, str]) -> str:
        """The rule in words, to stand behind the key `at`; with each key's value as given in `shown`."""
        first, second = shown[self.first], shown[self.second]
        reason = f": {self.reason}" if self.reason else ""
        if at == self.first:
            return f"{first} must be {self.relation} {self.second} ({second}){reason}"
        return f"found {second}, but {self.first} ({first}) must be {self.relation} this{reason}"


RULES: tuple[Rule, ...] = (
    Rule("planner.elites", "at most", "planner.samples", lambda elites, samples: elites <= samples),
    Rule(
        "planner.policy_trajectories",
        "less than",
        "planner.samples",
        lambda proposed, samples: proposed < samples,
        "some sequences have to be sampled",
    ),
    Rule("planner.std_min", "at most", "planner.std_max", lambda low, high: low <= high),
    Rule(
        "agent.latent_dim",
        "a multiple of",
        "agent.simnorm_dim",
        lambda latent, group: latent % group == 0,
        "SimNorm splits the latent into groups",
    ),
    Rule("agent.bin_low", "less than", "agent.bin_high", lambda low, high: low < high),
    Rule("agent.log_std_min", "less than", "agent.log_std_max", lambda low, high: low < high),
    Rule(
        "train.replay_capacity",
        "at least 2 more than",
        "agent.horizon",
        lambda capacity, horizon: capacity >= horizon + 2,
        "a sub-sequence has to fit into the replay",
    ),
    Rule(
        "train.seed_steps",
        "less than",
        "train.steps",
        lambda seed, steps: seed < steps,
        "no update would be made",
    ),
    Rule(
        "env.max_episode_steps",
        "at least",
        "agent.horizon",
        lambda limit, horizon: limit >= horizon,
        "shorter episodes are never sampled",
        unless="train.past_ends",
    ),
)


NETWORK_KEYS: tuple[str, ...] = tuple(
    f"agent.{name}"
    for name in (
        "latent_dim", "hidden_dim", "hidden_layers", "simnorm_dim", "encoder_norm", "termination", "termination_dim",
        "q_heads", "bins", "bin_low", "bin_high",
    )
)  # fmt: skip
"""What trained networks are bound to: their shapes, and what their outputs mean."""


def broken_rules(values: Mapping[str, Any]) -> Iterator[Rule]:
    """The rules that do not hold. A rule is skipped where a key is missing or None (a default made later)."""
    for rule in RULES:
        first, second = values.get(rule.first), values.get(rule.second)
        if rule.unless and values.get(rule.unless) is True:
            continue
        if first is not None and second is not None and not rule.holds(first, second):
            yield rule


def check_agent(agent: AgentConfig, planner: PlannerConfig) -> None:
    """Check two sections that were built in Python: types, ranges, and the rules between them.

    Raises ConfigError that lists everything wrong.
    """
    problems = []
    good = {}
    sections: dict[str, AgentConfig | PlannerConfig] = {"agent": agent, "planner": planner}
    for name, section in sections.items():
        cls: type = type(section)
        allowed = section_types(cls)
        for field in fields(section):
            key, value = f"{name}.{field.name}", getattr(section, field.name)
            if allowed[field.name].accepts(value):
                good[key] = value
            else:
                problems.append(f"{key}: found {value!r}; allowed: {allowed[field.name].words()}")
    shown = {key: str(value) for key, value in good.items()}
    problems += [f"{rule.first}: {rule.message(rule.first, shown)}" for rule in broken_rules(good)]
    if problems:
        raise ConfigError("\n".join(problems))
