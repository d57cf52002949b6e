"""A short look at an environment: how long its episodes are, how large its rewards."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tdmpc_lab.config.schema import EnvConfig
from tdmpc_lab.envs.hockey.opponents import FindOpponent
from tdmpc_lab.envs.make import has_opponents, make_env

STEPS = 200  # of random play: a moment
_GOAL = 10.0  # laser hockey's own reward at the end of a game; random play seldom comes that far


@dataclass(frozen=True)
class Look:
    """What was seen of an environment."""

    episode_length: int
    """The longest that an episode can be."""
    largest_reward: float
    """The largest size of a reward, as it is, in a moment of random play."""


def look_at(env: EnvConfig, seed: int, find_opponent: FindOpponent | None = None) -> Look:
    """Play at random for a moment.

    Raises:
        EnvironmentSpecError: it can't be made or is not supported.
        TrainingError: it fails at a step.
    """
    made = make_env(env, find_opponent=find_opponent)
    rng, largest = np.random.default_rng(seed), _GOAL if has_opponents(env.id) else 0.0
    try:
        made.reset(seed)
        for _ in range(STEPS):
            result = made.step(rng.uniform(-1, 1, made.action_dim).astype(np.float32))
            largest = max(largest, abs(result.reward))
            if result.terminated or result.truncated:
                break
        return Look(made.episode_length, largest)
    finally:
        made.close()
