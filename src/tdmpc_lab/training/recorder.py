"""Collects the running episode of one environment until it is over and can enter the replay."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from tdmpc_lab.agent import Episode
from tdmpc_lab.agent.replay import FloatArray, HalfArray, Plans
from tdmpc_lab.config.schema import RewardConfig
from tdmpc_lab.envs import StepResult
from tdmpc_lab.training.rewards import SHAPING_TERMS, EpisodeRewards, Rewards, episode_rewards


class StepPlan(NamedTuple):
    """The planner's distribution of one action, (A,) each, before the noise of exploring."""

    mean: HalfArray
    std: HalfArray


class EpisodeRecorder:
    """Grows one environment's episode step by step."""

    def __init__(self, first_observation: FloatArray) -> None:
        self._observations = [first_observation]
        self._actions: list[FloatArray] = []
        self._rewards: list[float] = []
        self._plans: list[StepPlan | None] = []  # None where the action was drawn at random
        self._terms: list[list[float]] = []  # per step, in the order of SHAPING_TERMS; empty where there are none
        self._terminated = False
        self._truncated = False
        self._last_info: dict[str, Any] = {}

    def add(self, action: FloatArray, result: StepResult, plan: StepPlan | None = None) -> None:
        """One step: the action (A,) that was taken and what came of it; the reward is the raw one.

        `plan` is what the action was drawn from, where it was planned and that is to be kept.
        """
        self._actions.append(action)
        self._plans.append(plan)
        self._observations.append(result.obs)
        self._rewards.append(result.reward)
        self._terms.append([float(result.info[key]) for key in SHAPING_TERMS.values() if key in result.info])
        self._terminated, self._truncated = result.terminated, result.truncated
        self._last_info = result.info

    @property
    def done(self) -> bool:
        """The episode is over."""
        return self._terminated or self._truncated

    @property
    def last_observation(self) -> FloatArray:
        """The observation the next action is for, (O,)."""
        return self._observations[-1]

    @property
    def summary(self) -> dict[str, Any]:
        """What the metrics say of the episode: raw return, length, how it ended; of a game, against whom, who won."""
        return {
            "return": float(np.sum(self._rewards)),
            "episode_length": len(self._rewards),
            "terminated": self._terminated,
            **{key: self._last_info[key] for key in ("winner", "opponent") if key in self._last_info},
        }

    def rewards(self, config: RewardConfig, episode: int) -> EpisodeRewards:
        """The rewards of the finished episode; see `rewards.episode_rewards`."""
        terms = np.asarray(self._terms, dtype=np.float64).reshape(len(self._rewards), -1)
        by_name = dict(zip(SHAPING_TERMS, terms.T, strict=False))
        raw = np.asarray(self._rewards, dtype=np.float64)
        return episode_rewards(config, raw, by_name, won=self._last_info.get("winner") == 1, episode=episode)

    def episode(self, rewards: Rewards, scale: float) -> Episode:
        """The episode as the replay takes it, with `rewards` (T,) times `scale`.

        Only the last step can be terminated or truncated; the two are kept apart.
        """
        steps = len(self._rewards)
        terminated = np.zeros(steps, dtype=np.bool_)
        truncated = np.zeros(steps, dtype=np.bool_)
        terminated[-1] = self._terminated
        truncated[-1] = self._truncated and not self._terminated
        return Episode(
            observations=np.stack(self._observations),
            actions=np.stack(self._actions),
            rewards=rewards.astype(np.float32) * np.float32(scale),
            terminated=terminated,
            truncated=truncated,
            plans=self._all_plans(),
        )

    def _all_plans(self) -> Plans:
        """Of all steps so far."""
        plans = Plans.unknown(len(self._plans), self._actions[0].shape[0] if self._actions else 0)
        for step, plan in enumerate(self._plans):
            if plan is not None:
                plans.random[step] = False
                plans.mean[step], plans.std[step] = plan.mean, plan.std
        return plans

    def state_dict(self) -> dict[str, Any]:
        """The running episode as tensors, for a checkpoint."""
        observations = np.stack(self._observations)
        actions = np.stack(self._actions) if self._actions else np.zeros((0, 0), dtype=np.float32)
        plans = self._all_plans()
        return {
            "observations": torch.from_numpy(observations),
            "actions": torch.from_numpy(actions),
            "rewards": list(self._rewards),
            "terms": [list(terms) for terms in self._terms],
            "random": torch.from_numpy(plans.random),
            "plan_mean": torch.from_numpy(plans.mean),
            "plan_std": torch.from_numpy(plans.std),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> EpisodeRecorder:
        """The recorder `state_dict` was taken of; that episode was still running."""
        observations = list(state["observations"].numpy())
        recorder = cls(observations[0])
        recorder._observations = observations
        recorder._actions = list(state["actions"].numpy()) if state["rewards"] else []
        recorder._rewards = [float(r) for r in state["rewards"]]
        recorder._terms = [[float(term) for term in terms] for terms in state["terms"]]
        recorder._plans = [None] * len(recorder._actions)
        if "random" in state:  # checkpoints of older versions do not say: their steps count as random
            steps = zip(state["random"].tolist(), state["plan_mean"].numpy(), state["plan_std"].numpy(), strict=True)
            recorder._plans = [None if random else StepPlan(mean, std) for random, mean, std in steps]
        return recorder
