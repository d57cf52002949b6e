"""Evaluation: whole episodes in separate environments with seeds of their own, planned for in one batched call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tdmpc_lab.agent import Agent
from tdmpc_lab.envs import ControlEnv, evaluation_seeds
from tdmpc_lab.training.metrics import Row
from tdmpc_lab.training.stop import StopFlag

MAX_SIDE_BY_SIDE = 16


@dataclass(frozen=True)
class EpisodeResult:
    """One evaluation episode."""

    seed: int
    total: float  # undiscounted return, raw reward
    length: int  # steps


@dataclass(frozen=True)
class Evaluation:
    """The episodes of one evaluation."""

    episodes: tuple[EpisodeResult, ...]

    def row(self) -> Row:
        """The part of a metric row that describes this evaluation; `return_std` is over the episodes."""
        returns = np.array([e.total for e in self.episodes])
        return {
            "return_mean": float(returns.mean()),
            "return_std": float(returns.std()),
            "return_min": float(returns.min()),
            "return_max": float(returns.max()),
            "length_mean": float(np.mean([e.length for e in self.episodes])),
            "episodes": len(self.episodes),
        }


class Evaluator:
    """Plays the same start states at every call, so that two evaluations differ by the agent alone.

    It touches no random state of the training: environments and planning draw from seeds of their own.
    """

    def __init__(self, make: Callable[[], ControlEnv], *, episodes: int, seed: int) -> None:
        self._seeds = evaluation_seeds(seed, episodes)
        self._plan_seed = seed
        self._make = make
        self._envs: list[ControlEnv] = []

    def run(self, agent: Agent, stop: StopFlag | None = None) -> Evaluation | None:
        """Play all episodes with the agent as it is, without exploration noise; None once `stop` is set."""
        stop = StopFlag() if stop is None else stop
        while len(self._envs) < min(len(self._seeds), MAX_SIDE_BY_SIDE):
            self._envs.append(self._make())
        results: list[EpisodeResult] = []
        for start in range(0, len(self._seeds), MAX_SIDE_BY_SIDE):
            results += self._play(agent, self._seeds[start : start + MAX_SIDE_BY_SIDE], stop)
        if stop:
            return None
        return Evaluation(tuple(results))

    def _play(self, agent: Agent, seeds: list[int], stop: StopFlag) -> list[EpisodeResult]:
        """One episode per seed, side by side; broken off when `stop` is set."""
        state = agent.plan_state(len(seeds), seed=self._plan_seed)
        observations = np.stack([env.reset(seed) for env, seed in zip(self._envs, seeds, strict=False)])
        totals = [0.0] * len(seeds)
        lengths = [0] * len(seeds)
        running = np.arange(len(seeds))
        while len(running) and not stop:
            actions = agent.act(observations[running], state, explore=False, envs=running)
            going_on = []
            for i, action in zip(running.tolist(), actions, strict=True):
                result = self._envs[i].step(action)
                observations[i] = result.obs
                totals[i] += result.reward
                lengths[i] += 1
                if not (result.terminated or result.truncated):
                    going_on.append(i)
            running = np.array(going_on, dtype=np.int64)
        return [EpisodeResult(*e) for e in zip(seeds, totals, lengths, strict=True)]

    def close(self) -> None:
        """Close the environments."""
        for env in self._envs:
            env.close()
        self._envs.clear()
