"""Advice on a config that takes a look at its environment: how long its episodes are, how large its rewards."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tdmpc_lab.app.opponents import stand_in
from tdmpc_lab.config.schema import AgentConfig, EnvConfig, Spec
from tdmpc_lab.errors import LabError
from tdmpc_lab.jobs.paths import Project
from tdmpc_lab.text import number

STEPS = 200  # of random play: a moment
_GOAL = 10.0  # laser hockey's own reward at the end of a game; random play seldom comes that far


@dataclass(frozen=True)
class Look:
    """What was seen of an environment."""

    episode_length: int
    """The longest that an episode can be."""
    largest_reward: float
    """The largest size of a reward, as it is, in a moment of random play."""


def look_at(project: Project, env: EnvConfig, seed: int) -> Look | None:
    """Play at random for a moment; None where the environment can't be made or fails, which others tell."""
    from tdmpc_lab.envs import has_opponents, make_env

    try:
        made = make_env(env, find_opponent=lambda name: stand_in(project, name))
    except LabError:
        return None
    rng, largest = np.random.default_rng(seed), _GOAL if has_opponents(env.id) else 0.0
    try:
        made.reset(seed)
        for _ in range(STEPS):
            result = made.step(rng.uniform(-1, 1, made.action_dim).astype(np.float32))
            largest = max(largest, abs(result.reward))
            if result.terminated or result.truncated:
                break
        return Look(made.episode_length, largest)
    except LabError:
        return None
    finally:
        made.close()


def too_short(spec: Spec, look: Look) -> tuple[str, str, str] | None:
    """Episodes that can't hold a sub-sequence: what, why and what to do."""
    horizon, length = spec.agent.horizon, look.episode_length
    if length > horizon:
        return None
    return (
        f"agent.horizon={horizon}, and an episode has at most {length} steps",
        "an episode shorter than horizon + 1 steps is never sampled: nothing would be learned",
        f"a horizon below {length}, or longer episodes (env.max_episode_steps)",
    )


def out_of_range(spec: Spec, look: Look) -> tuple[str, str, str] | None:
    """Rewards that the bins of the discrete regression can't tell apart: what, why and what to do."""
    agent, largest = spec.agent, look.largest_reward * spec.reward.scale
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
