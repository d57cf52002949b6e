"""The estimate of device memory against what really lives at once, counted tensor by tensor on the CPU."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tdmpc_lab.agent.agent import Agent
from tdmpc_lab.agent.bench import random_batch
from tdmpc_lab.agent.memory import DeviceMemory, device_memory
from tdmpc_lab.agent.world_model import parameter_counts
from tdmpc_lab.config.schema import AgentConfig, PlannerConfig

OBSERVATION, ACTION = 18, 4
SMALL = AgentConfig(latent_dim=64, hidden_dim=64, hidden_layers=2, q_heads=3, horizon=3, termination_dim=32)
MIDDLE = AgentConfig(latent_dim=128, hidden_dim=96, q_heads=5, horizon=5, termination_dim=64)


class Live(TorchDispatchMode):
    """Counts the bytes of all storages made inside that live at once."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.sizes:
                    self.sizes[storage._cdata] = storage.nbytes()
                    self.now += storage.nbytes()
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self._gone, storage._cdata)
        return out

    def _gone(self, key: int) -> None:
        self.now -= self.sizes.pop(key, 0)


def peak(call: Callable[[], object]) -> int:
    with Live() as live:
        call()
    return live.peak


def estimate(agent: Agent, config: AgentConfig, planner: PlannerConfig, batch: int, envs: int) -> DeviceMemory:
    counts = parameter_counts(agent.model)
    return device_memory(counts["total"], counts["q"], ACTION, config, planner, batch_size=batch, envs=envs)


@pytest.mark.parametrize(
    ("config", "samples", "batch", "envs"), [(SMALL, 128, 256, 1), (MIDDLE, 512, 64, 4), (MIDDLE, 64, 128, 2)]
)
def test_the_estimate_is_near_what_lives_at_once(config: AgentConfig, samples: int, batch: int, envs: int) -> None:
    planner = PlannerConfig(samples=samples, iterations=2, elites=16, policy_trajectories=8)
    agent = Agent(OBSERVATION, ACTION, agent=config, planner=planner, device="cpu")
    data = random_batch(OBSERVATION, ACTION, config, batch, agent.device)
    agent.update(data)  # Adam's moments are made at the first
    assert agent.rollouts.action_dim == ACTION  # the copies that plan are made here
    found = estimate(agent, config, planner, batch, envs)
    gradients = 4 * parameter_counts(agent.model)["total"]
    assert 0.8 < (found.update + gradients) / peak(lambda: agent.update(data)) < 1.6
    state, observations = agent.plan_state(envs, seed=0), np.zeros((envs, OBSERVATION), np.float32)
    assert 0.5 < found.plan / peak(lambda: agent.act(observations, state, explore=True)) < 2.0
    assert found.weights == sum(4 * p.numel() for p in agent.model.parameters())


def test_it_grows_with_what_takes_memory() -> None:
    def total(batch: int = 256, envs: int = 1, samples: int = 512, horizon: int = 9) -> int:
        agent, planner = AgentConfig(horizon=horizon), PlannerConfig(samples=samples)
        return device_memory(10_674_023, 5_000_000, ACTION, agent, planner, batch_size=batch, envs=envs).total

    assert total(batch=2048) > 4 * total()
    assert total(envs=256) > 4 * total()
    assert total(samples=512 * 256) == total(envs=256)
    assert total(horizon=18) > 1.5 * total()
    assert 0.4 < total() / 2**30 < 1.5  # the reference agent is at home on any GPU
