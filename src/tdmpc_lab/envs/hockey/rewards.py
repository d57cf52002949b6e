"""The info terms and the reward, as functions of what a player sees.

Both players' terms come from the same functions: player two is given mirrored numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tdmpc_lab.envs.hockey.constants import MAX_PUCK_SPEED, MAX_TIME_KEEP_PUCK, SCALE

WIN_REWARD = 10
_FULL_CLOSENESS = -30.0  # the closeness term of an episode in which the puck is always this far away:
_FULL_DISTANCE = 250 / SCALE


def closeness(distance: float, steps: int) -> float:
    """Term ≤ 0 for a player who is so many metres from a puck that lies in his half and doesn't leave it."""
    return distance * (_FULL_CLOSENESS / (_FULL_DISTANCE * steps / 2))


def touch(counter: float) -> float:
    """1 in the step in which the player caught the puck."""
    return 1.0 if counter == MAX_TIME_KEEP_PUCK else 0.0


def direction(puck_vx: float, steps: int) -> float:
    """Term for the speed of the puck towards the opponent's goal, in metres a second."""
    return puck_vx * (1 / (steps * MAX_PUCK_SPEED))


def info_of(winner: int, near: float, counter: float, puck_vx: float, steps: int) -> dict[str, Any]:
    """The info dictionary of one player. `steps` is the length of an episode."""
    return {
        "winner": winner,
        "reward_closeness_to_puck": near,
        "reward_touch_puck": touch(counter),
        "reward_puck_direction": direction(puck_vx, steps),
    }


def outcome(done: bool, winner: int) -> float:
    """The reward for how the game ended, for player one; 0 as long as it runs."""
    if not done or winner == 0:
        return 0.0
    return float(WIN_REWARD if winner == 1 else -WIN_REWARD)


def reward_of(base: float, info: Mapping[str, Any]) -> float:
    """The reward of a step: the outcome and the closeness; touch and direction are no part of it."""
    return float(base + info["reward_closeness_to_puck"])
