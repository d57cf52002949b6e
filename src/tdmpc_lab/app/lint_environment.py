"""Advice on a config that takes a look at its environment: the length of its episodes, the size of its rewards."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tdmpc_lab.app.opponents import stand_in
from tdmpc_lab.config.schema import AgentConfig, Spec
from tdmpc_lab.errors import LabError
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.text import count, number

if TYPE_CHECKING:
    from tdmpc_lab.envs.look import Look


def look(project: Project, spec: Spec) -> Look | None:
    """Play in the spec's environment for a moment; None where that can't be done, which others tell."""
    from tdmpc_lab.envs.look import look_at

    try:
        return look_at(spec.env, spec.train.seed, lambda name: stand_in(project, name))
    except LabError:
        return None


def too_short(spec: Spec, seen: Look) -> tuple[str, str, str] | None:
    """Episodes that can't hold a sub-sequence: what, why and what to do."""
    horizon, length = spec.agent.horizon, seen.episode_length
    if length > horizon or spec.train.past_ends:
        return None
    return (
        f"agent.horizon={horizon}, and an episode has at most {count(length, 'step')}",
        "an episode shorter than horizon + 1 steps is never sampled: nothing would be learned",
        f"a horizon below {length}, longer episodes (env.max_episode_steps), or train.past_ends: on",
    )


def out_of_range(spec: Spec, seen: Look) -> tuple[str, str, str] | None:
    """Rewards that the bins of the discrete regression can't tell apart: what, why and what to do."""
    agent, largest = spec.agent, seen.largest_reward * spec.reward.scale
    highest, narrowest = _symexp(min(agent.bin_high, -agent.bin_low)), _symexp(_bin_width(agent))
    scaled = f"rewards of up to {number(largest)} (seen in random play, times reward.scale)"
    if largest > highest:
        return (
            f"{scaled} lie outside the bins, which end at {number(highest)}",
            "everything beyond the last bin is learned as the last bin",
            "a smaller reward.scale, or wider agent.bin_low and bin_high",
        )
    if 0 < largest < narrowest:
        return (
            f"{scaled} are smaller than one bin, which is {number(narrowest)} wide at zero",
            "differences within one bin are learned slowly and drown in the noise",
            "a larger reward.scale, or more agent.bins",
        )
    return None


def _bin_width(agent: AgentConfig) -> float:
    """In symlog space."""
    return (agent.bin_high - agent.bin_low) / (agent.bins - 1)


def _symexp(x: float) -> float:
    return math.copysign(math.expm1(abs(x)), x)
