"""The episodes whose numbers are checked in. `python hockey_trajectories.py` writes them anew.

Do that only when the game is meant to change: the numbers stand for the trajectories of the original.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tdmpc_lab.envs.hockey import HockeyEnv, Mode, make_opponent

FILE = Path(__file__).parent / "golden" / "trajectories.json"
EVERY = 10  # steps between two rows
MORE_STEPS_THAN_ANY_EPISODE = 300

Player = Callable[[Any], Any]


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One episode; the players are opponents of ours or "random" actions."""

    name: str
    seed: int
    one: str
    two: str
    one_starting: bool = True
    keep_mode: bool = True
    mode: Mode = Mode.NORMAL
    episodes_before: int = 0


SCENARIOS = (
    Scenario(name="random", seed=1, one="random", two="random"),
    Scenario(name="random without keeping", seed=2, one="random", two="random", keep_mode=False, one_starting=False),
    Scenario(name="weak against strong", seed=3, one="weak", two="strong", one_starting=False),
    Scenario(name="strong against strong", seed=4, one="strong", two="strong"),
    Scenario(name="a third episode", seed=5, one="strong", two="weak", episodes_before=2),
    Scenario(name="shooting", seed=6, one="strong", two="weak", mode=Mode.TRAIN_SHOOTING),
    Scenario(name="defense", seed=7, one="strong", two="random", mode=Mode.TRAIN_DEFENSE),
)


class SeededHockey(HockeyEnv):
    """The two-player core whose very first reset is seeded too."""

    constructor_seed = 0


def play(scenario: Scenario) -> list[dict[str, Any]]:
    """Rows of an episode: the reset, every tenth step and the last one."""
    env = SeededHockey(keep_mode=scenario.keep_mode, mode=scenario.mode)
    for before in range(scenario.episodes_before):
        run_episode(env, scenario, 100 + before)
    return run_episode(env, scenario, scenario.seed)


def run_episode(env: HockeyEnv, scenario: Scenario, seed: int) -> list[dict[str, Any]]:
    one, two = make_opponent(scenario.one), make_opponent(scenario.two)
    one.start_episode(2 * seed)
    two.start_episode(2 * seed + 1)
    k = env.num_actions
    obs, info = env.reset(one_starting=scenario.one_starting, seed=seed)
    rows = [row(0, obs, 0.0, info)]
    for step in range(1, MORE_STEPS_THAN_ANY_EPISODE):
        action = np.hstack([one.act(obs)[:k], two.act(env.obs_agent_two())[:k]]).astype(np.float32)
        obs, reward, done, _, info = env.step(action)
        if done or step % EVERY == 0:
            rows.append(row(step, obs, reward, info))
        if done:
            return rows
    raise AssertionError("the episode does not end")


def row(step: int, obs: Any, reward: float, info: dict[str, Any]) -> dict[str, Any]:
    """Plain numbers; observations are float32, so that eight or nine digits tell all of them."""
    return {
        "step": step,
        "obs": [float(str(np.float32(number))) for number in obs],
        "reward": reward,
        "winner": info["winner"],
        "closeness": info["reward_closeness_to_puck"],
        "touch": info["reward_touch_puck"],
        "direction": info["reward_puck_direction"],
    }


def main() -> None:
    episodes = [
        f"{json.dumps(scenario.name)}: [\n" + ",\n".join(json.dumps(line) for line in play(scenario)) + "\n]"
        for scenario in SCENARIOS
    ]
    FILE.write_text("{\n" + ",\n".join(episodes) + "\n}\n")


if __name__ == "__main__":
    main()
