"""Steps per second of laser hockey on one core: `python benchmarks/hockey_steps.py [steps]`.

Resets are part of it. The original package made 17,000 to 20,000 steps a second with random actions, and
8,700 to 9,200 with two scripted bots, on the machine where its figures were taken.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np

from tdmpc_lab.envs.hockey import BasicOpponent, HockeyEnv, OnePlayerHockey


def random_game(steps: int) -> None:
    """Two players with random actions, made beforehand."""
    actions = np.random.default_rng(0).uniform(-1, 1, (steps, 8)).astype(np.float32)
    env = HockeyEnv()
    env.reset(seed=0)
    for step in range(steps):
        done = env.step(actions[step])[2]
        if done:
            env.reset(seed=step)


def two_bots(steps: int) -> None:
    """The weak bot against the strong one."""
    env, one, two = HockeyEnv(), BasicOpponent(weak=True), BasicOpponent(weak=False)
    obs, _ = env.reset(seed=0)
    for step in range(steps):
        action = np.hstack([one.act(obs), two.act(env.obs_agent_two())])
        obs, _, done, _, _ = env.step(action)
        if done:
            obs, _ = env.reset(seed=step)


def training_view(steps: int) -> None:
    """Random actions against the weak bot, as the trainer steps the game."""
    actions = np.random.default_rng(0).uniform(-1, 1, (steps, 4)).astype(np.float32)
    env = OnePlayerHockey(opponent="weak")
    env.reset(seed=0)
    for step in range(steps):
        _, _, terminated, truncated, _ = env.step(actions[step])
        if terminated or truncated:
            env.reset(seed=step)


def steps_per_second(play: Callable[[int], None], steps: int) -> float:
    """Of this process's own time, best of three: other processes on the machine count for little."""
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        play(steps)
        best = min(best, time.process_time() - start)
    return steps / best


def main() -> None:
    """Measure and print."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    for name, play in (("random actions", random_game), ("two bots", two_bots), ("training view", training_view)):
        print(f"{name:15} {steps_per_second(play, steps):9,.0f} steps/s")


if __name__ == "__main__":
    main()
