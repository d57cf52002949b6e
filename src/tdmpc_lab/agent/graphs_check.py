"""The test of captured plans and updates, for a process of its own: `python -m tdmpc_lab.agent.graphs_check DEVICE`.

Two agents learn and plan side by side, one call by call, one through CUDA graphs.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from torch import Tensor

from tdmpc_lab.agent.agent import Agent
from tdmpc_lab.agent.bench import perturb_heads, random_batch
from tdmpc_lab.agent.device import ChosenPrecision
from tdmpc_lab.agent.graphs import GOOD
from tdmpc_lab.agent.native.choose import Kernels
from tdmpc_lab.config.schema import AgentConfig, PlannerConfig

LARGEST_ERROR = 0.1  # of how far the weights moved; the same kernels on the same numbers give next to 0
UPDATES = 8
PLANS = 4
COMPARED = ChosenPrecision("float32", "for a comparison")
"""What plans are compared in: filled up, a batch has other products, and where those round to bfloat16 another sequence
becomes an elite now and then, and the action is another one."""


def compare(device: str) -> str:
    """`good`, or what two agents disagree on, one of which plans and learns through captures."""
    config = AgentConfig(latent_dim=64, hidden_dim=64, hidden_layers=2, termination_dim=32, horizon=3, lr=1e-3)
    planner = PlannerConfig(samples=64, iterations=3, elites=8, policy_trajectories=8)
    agents = []
    for captured in (False, True):
        agent = Agent(7, 3, agent=config, planner=planner, device=device)
        agent.kernels = Kernels("tested", captured=captured)
        perturb_heads(agent)
        agents.append(agent)
    batch = random_batch(7, 3, config, 64, agents[0].device)
    starts = [_weights(agent) for agent in agents]
    for _ in range(UPDATES):
        for agent in agents:
            agent.update(batch)
    wanted, found = (_weights(agent) - start for agent, start in zip(agents, starts, strict=True))
    error = float(((found - wanted).norm() / wanted.norm()).nan_to_num(nan=torch.inf))
    if not error < LARGEST_ERROR:
        return f"captured updates move the weights by {error:.3g} of their way elsewhere"
    for weights, source in zip(agents[1].model.parameters(), agents[0].model.parameters(), strict=True):
        with torch.no_grad():
            weights.copy_(source)  # so that the plans are of the same model
    observations = np.random.default_rng(0).normal(size=(3, 7)).astype(np.float32)  # one place is filled up
    own = agents[1].act(observations, agents[1].plan_state(3, seed=1), explore=True)
    if not np.isfinite(own).all():
        return f"captured plans in {agents[1].precision.name} act by numbers that are none"
    for agent in agents:
        agent.use_precision(COMPARED)
    states = [agent.plan_state(3, seed=1) for agent in agents]
    for _ in range(PLANS):
        wanted_action, found_action = (
            agent.act(observations, state, explore=True) for agent, state in zip(agents, states, strict=True)
        )
        off = float(np.abs(found_action - wanted_action).max())
        if not off < LARGEST_ERROR:
            return f"captured plans act {off:.3g} elsewhere"
    return GOOD


def _weights(agent: Agent) -> Tensor:
    """All of them, flat, on the CPU."""
    return torch.cat([p.detach().flatten().cpu() for p in agent.model.parameters()])


if __name__ == "__main__":
    print(compare(sys.argv[1]))
