"""The curriculum: what the phases of a spec come to, and what is wrong with them.

A phase changes `env` and `reward` of the spec itself, not of the phase before it. It lasts `steps` environment steps;
an episode belongs to the phase it began in.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeAlias

from tdmpc_lab.config.diff import diff
from tdmpc_lab.config.layers import Layer, merge, value_at
from tdmpc_lab.config.rules import broken_rules
from tdmpc_lab.config.schema import EnvConfig, FractionRamp, Ramp, RewardConfig, Spec
from tdmpc_lab.config.serialize import to_dict
from tdmpc_lab.config.validation import adapter, refused, validate_layer
from tdmpc_lab.yaml_strict import YamlPath

SELF = "self"
"""The opponent that is a past copy of the agent itself."""
Mode: TypeAlias = Literal["plan", "policy"]
"""Whether an agent plans its actions or takes those of its policy prior, which is many times quicker."""
MODES: tuple[Mode, ...] = ("plan", "policy")


@dataclass(frozen=True)
class Phase:
    """A stretch of the training with an environment and a reward of its own."""

    number: int
    """From 1."""
    first_step: int
    """The environment step at which it begins."""
    env: EnvConfig
    reward: RewardConfig
    changes: tuple[str, ...]
    """What is different from the phase before, of the first from the spec itself, in words."""


def phases_of(spec: Spec) -> tuple[Phase, ...]:
    """The phases of a valid spec, in order; a spec without any is one phase."""
    if not spec.phases:
        return (Phase(1, 0, spec.env, spec.reward, ()),)
    phases = []
    first, before = 0, replace(spec, phases=())
    for number, values in enumerate(spec.phases, start=1):
        changed = adapter().validate_json(json.dumps(_overlaid(spec, values)))
        words = tuple(str(change) for change in diff(before, changed))
        before = changed
        phases.append(Phase(number, first, changed.env, changed.reward, words))
        first += int(values.get("steps", 0))
    return tuple(phases)


def split_mode(name: str, default: Mode = "policy") -> tuple[str, Mode]:
    """`1971498:plan` → (`1971498`, `plan`); without an ending the mode is `default`."""
    for mode in MODES:
        if name.endswith(f":{mode}"):
            return name.removesuffix(f":{mode}"), mode
    return name, default


def opponent_weights(env: EnvConfig) -> dict[str, float]:
    """The opponents of an `env` section with their weights, those of weight 0 left out; `weak` where none is named."""
    if env.opponent is None:
        return {"weak": 1.0}
    if isinstance(env.opponent, Mapping):
        return {name: float(weight) for name, weight in env.opponent.items() if weight > 0}
    return {str(env.opponent): 1.0}


def phase_problems(spec: Spec) -> Iterator[tuple[YamlPath, str, str]]:
    """What is wrong with opponents and phases, taken together with the rest of the spec: path, message, hint."""
    if not spec.phases:
        yield from _opponent_problems(spec.env, ("env", "opponent"))
        yield from _ramp_problems(spec.reward, ("reward",))
    first = 0
    for index, values in enumerate(spec.phases):
        place: YamlPath = ("phases", index)
        if first >= spec.train.steps:
            yield place, f"begins at step {first}, and train.steps is {spec.train.steps}", "it would never be reached"
        if "steps" not in values and index + 1 < len(spec.phases):
            yield (*place, "steps"), "missing; only the last phase may leave it out", "write steps: …"
        first += int(values.get("steps", 0))
        data = _overlaid(spec, values)
        broken = refused(data)
        for path, why in broken.items():
            text = "missing" if why == "missing" else f"found {value_at(data, path)!r}, which does not fit"
            yield (*place, *path), text, "a phase is laid over env and reward of the spec"
        if not broken:
            yield from _merged_problems(adapter().validate_json(json.dumps(data)), place)


def _merged_problems(spec: Spec, place: YamlPath) -> Iterator[tuple[YamlPath, str, str]]:
    flat = to_dict(spec)
    values = {key: value_at(flat, tuple(key.split("."))) for key in ("env.max_episode_steps", "agent.horizon")}
    for rule in broken_rules(values):
        yield place, rule.message(rule.first, {key: str(values[key]) for key in rule.keys}), ""
    yield from _opponent_problems(spec.env, (*place, "env", "opponent"))
    yield from _ramp_problems(spec.reward, (*place, "reward"))


def _ramp_problems(reward: RewardConfig, path: YamlPath) -> Iterator[tuple[YamlPath, str, str]]:
    """A ramp over no episodes: its start value would never count, and nobody writes one that does not."""
    for section in ("shaping", "backprop"):
        config = getattr(reward, section)
        if config is None or config.hold or config.ramp:
            continue
        for field in fields(config):
            ramp = getattr(config, field.name)
            if isinstance(ramp, Ramp | FractionRamp) and ramp.final not in (None, ramp.start):
                message = f"goes from {ramp.start} to {ramp.final} at once, for hold and ramp are both 0: {ramp.start}"
                yield (*path, section, field.name), f"{message} never counts", "write ramp: N, in training episodes"


def _opponent_problems(env: EnvConfig, path: YamlPath) -> Iterator[tuple[YamlPath, str, str]]:
    weights = opponent_weights(env)
    if not weights:
        yield path, "no opponent has a weight above 0", "give one of them a weight"
    if any(split_mode(name)[0] == SELF for name in weights) and env.self_play is None:
        yield path, "names self, and env.self_play does not say which copies are kept", "write env: {self_play: on}"


def _overlaid(spec: Spec, values: Mapping[str, Any]) -> dict[str, Any]:
    """The spec's plain values with those of one phase over them, and no phases."""
    layer = Layer("phase", {key: value for key, value in values.items() if key != "steps"})
    validate_layer(layer)  # for the form: the values were checked where they stand
    return merge({**to_dict(spec), "phases": []}, layer.data)
