"""What the agent learns from in the place of the raw reward: shaping and backprop of laser hockey's rewards.

Both are applied to a whole episode when it is over, before it enters the replay. T is its number of steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tdmpc_lab.config.schema import BackpropConfig, FractionRamp, Ramp, RewardConfig, ShapingConfig
from tdmpc_lab.envs import ControlEnv
from tdmpc_lab.errors import EnvironmentSpecError

SHAPING_TERMS = {
    "closeness": "reward_closeness_to_puck",
    "touch": "reward_touch_puck",
    "direction": "reward_puck_direction",
}
"""The weights of `reward.shaping`, and the key of the environment's info that each is for."""

Rewards = NDArray[np.float64]


@dataclass(frozen=True)
class EpisodeRewards:
    """The rewards of one episode, each (T,)."""

    raw: Rewards
    """As the environment gave them."""
    shaped: Rewards
    """With shaping."""
    learned: Rewards
    """With shaping and backprop; times `reward.scale` it is what enters the replay."""
    weights: dict[str, float]
    """The weights in force for this episode, by the name they have in the metrics."""


def ramp_value(ramp: Ramp | FractionRamp, episode: int, *, hold: int, length: int) -> float:
    """The value for training episode `episode` (from 0): `start` for `hold` episodes, then straight to `final` within
    `length` episodes."""
    final = ramp.start if ramp.final is None else ramp.final
    if episode < hold:
        return ramp.start
    done = 1.0 if length == 0 else min(1.0, (episode - hold) / length)
    return ramp.start + (final - ramp.start) * done


def shaping_weights(shaping: ShapingConfig, episode: int) -> dict[str, float]:
    """The weight of each shaping term for training episode `episode` (from 0)."""
    return {
        name: ramp_value(getattr(shaping, name), episode, hold=shaping.hold, length=shaping.ramp)
        for name in SHAPING_TERMS
    }


def backprop_bonus(steps: int, bonus: float, discount: float) -> Rewards:
    """What a won episode of T steps gets on top, (T,): bonus · discount^((T − 2) − t) for t = 0 … T − 2, 0 at the end.

    The last step has its own reward, the goal.
    """
    added = np.zeros(steps)
    if steps > 1:
        added[:-1] = bonus * np.power(discount, np.arange(steps - 2, -1, -1, dtype=np.float64))
    return added


def backprop_weights(backprop: BackpropConfig, episode: int) -> tuple[float, float]:
    """Bonus and discount for training episode `episode` (from 0)."""
    bonus = ramp_value(backprop.bonus, episode, hold=backprop.hold, length=backprop.ramp)
    discount = ramp_value(backprop.discount, episode, hold=backprop.hold, length=backprop.ramp)
    return bonus, discount


def episode_rewards(
    config: RewardConfig, raw: Rewards, terms: dict[str, Rewards], *, won: bool, episode: int
) -> EpisodeRewards:
    """The rewards of a finished episode.

    Args:
        raw: the environment's own rewards, (T,).
        terms: the shaping terms of `SHAPING_TERMS` by weight name, each (T,); needed only with shaping.
        won: the episode was won. Lost and drawn ones get no bonus.
        episode: number of the training episode, from 0, for weights that change over training.
    """
    weights: dict[str, float] = {}
    shaped = raw
    if config.shaping is not None:
        shaping = shaping_weights(config.shaping, episode)
        weights |= {f"shaping_{name}": weight for name, weight in shaping.items()}
        shaped = raw + sum(weight * terms[name] for name, weight in shaping.items())
    learned = shaped
    if config.backprop is not None:
        bonus, discount = backprop_weights(config.backprop, episode)
        weights |= {"backprop_bonus": bonus, "backprop_discount": discount}
        if won:
            learned = shaped + backprop_bonus(len(raw), bonus, discount)
    return EpisodeRewards(raw, shaped, learned, weights)


def check_reward_terms(env: ControlEnv, env_id: str, config: RewardConfig) -> None:
    """Take one step to see whether the environment tells what the reward section needs, as laser hockey does.

    Raises:
        EnvironmentSpecError: it does not.
        TrainingError: it fails at reset or at the step.
    """
    env.reset(0)
    info = env.step(np.zeros(env.action_dim, dtype=np.float32)).info
    shaping = [] if config.shaping is None else list(SHAPING_TERMS.values())
    backprop = [] if config.backprop is None else ["winner"]
    for name, needed in (("shaping", shaping), ("backprop", backprop)):
        if missing := [key for key in needed if key not in info]:
            raise EnvironmentSpecError(
                f"reward.{name} is for laser hockey: it needs {', '.join(missing)} in the environment's info, which "
                f"'{env_id}' lacks; leave reward.{name} out",
                key=f"reward.{name}",
            )
