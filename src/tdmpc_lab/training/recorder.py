"""Collects the running episode of one environment until it is over and can enter the replay."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tdmpc_lab.agent import Episode
from tdmpc_lab.agent.replay import FloatArray
from tdmpc_lab.envs import StepResult


class EpisodeRecorder:
    """Grows one environment's episode step by step."""

    def __init__(self, first_observation: FloatArray) -> None:
        self._observations = [first_observation]
        self._actions: list[FloatArray] = []
        self._rewards: list[float] = []
        self._terminated = False
        self._truncated = False

    def add(self, action: FloatArray, result: StepResult) -> None:
        """One step: the action (A,) that was taken and what came of it; the reward is the raw one."""
        self._actions.append(action)
        self._observations.append(result.obs)
        self._rewards.append(result.reward)
        self._terminated, self._truncated = result.terminated, result.truncated

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
        """What the metrics say of the episode: raw return, length, how it ended."""
        return {
            "return": float(np.sum(self._rewards)),
            "episode_length": len(self._rewards),
            "terminated": self._terminated,
        }

    def episode(self, reward_scale: float) -> Episode:
        """The episode as the replay takes it, with rewards times `reward_scale`.

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
            rewards=np.asarray(self._rewards, dtype=np.float32) * np.float32(reward_scale),
            terminated=terminated,
            truncated=truncated,
        )

    def state_dict(self) -> dict[str, Any]:
        """The running episode as tensors, for a checkpoint."""
        observations = np.stack(self._observations)
        actions = np.stack(self._actions) if self._actions else np.zeros((0, 0), dtype=np.float32)
        return {
            "observations": torch.from_numpy(observations),
            "actions": torch.from_numpy(actions),
            "rewards": list(self._rewards),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> EpisodeRecorder:
        """The recorder `state_dict` was taken of; that episode was still running."""
        observations = list(state["observations"].numpy())
        recorder = cls(observations[0])
        recorder._observations = observations
        recorder._actions = list(state["actions"].numpy()) if state["rewards"] else []
        recorder._rewards = [float(r) for r in state["rewards"]]
        return recorder
