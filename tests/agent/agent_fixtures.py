"""Small agents and data shared by the trainer's tests."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Generator

from tdmpc_lab.agent import Agent, AgentConfig, Batch, Episode, PlannerConfig, WorldModel

TINY = AgentConfig(
    latent_dim=16,
    hidden_dim=24,
    hidden_layers=2,
    termination_dim=8,
    horizon=3,
    bins=21,
    discount=0.9,
    dropout=0.0,
)
TINY_PLANNER = PlannerConfig(samples=32, iterations=2, elites=8, policy_trajectories=4)


def tiny_model(seed: int = 0) -> WorldModel:
    return WorldModel(5, 2, TINY, seed=seed)


def tiny_agent(seed: int = 0, config: AgentConfig = TINY, planner: PlannerConfig = TINY_PLANNER) -> Agent:
    return Agent(5, 2, agent=config, planner=planner, seed=seed, device="cpu")


def perturbed(model: WorldModel, scale: float = 0.3, seed: int = 9) -> WorldModel:
    """Random weights everywhere, so that no head predicts a constant and online and target differ."""
    generator = Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(scale * torch.randn(p.shape, generator=generator))
    return model


def observations(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed))


def random_batch(horizon: int = 3, batch: int = 4, seed: int = 2) -> Batch:
    generator = Generator().manual_seed(seed)
    terminated = torch.zeros(horizon, batch)
    terminated[-1, 0] = 1.0
    return Batch(
        observations=torch.randn(horizon + 1, batch, 5, generator=generator),
        actions=2 * torch.rand(horizon, batch, 2, generator=generator) - 1,
        rewards=3 * torch.randn(horizon, batch, generator=generator),
        terminated=terminated,
        truncated=torch.zeros(horizon, batch),
    )


def batch_on(batch: Batch, device: str) -> Batch:
    """The same batch on another device."""
    found = {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}
    return Batch(**{name: None if tensor is None else tensor.to(device) for name, tensor in found.items()})


def numbered_episode(number: int, steps: int, *, terminated: bool = False, dims: tuple[int, int] = (5, 2)) -> Episode:
    """Every entry tells where it comes from: observation = 1000 · number + t, action = its negative, reward = t."""
    t = np.arange(steps + 1, dtype=np.float32)
    obs = np.repeat((1000 * number + t)[:, None], dims[0], axis=1)
    flags = np.zeros(steps, dtype=np.bool_)
    last = flags.copy()
    last[-1] = True
    return Episode(
        observations=obs,
        actions=-np.repeat((1000 * number + t[:-1])[:, None], dims[1], axis=1),
        rewards=t[:-1].copy(),
        terminated=last if terminated else flags,
        truncated=flags if terminated else last,
    )
