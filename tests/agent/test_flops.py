"""The formulas against torch's own count of the products it runs."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from agent_fixtures import TINY, TINY_PLANNER, random_batch, tiny_agent
from torch.utils.flop_counter import FlopCounterMode

from tdmpc_lab.agent import AgentConfig, PlannerConfig, WorldModel
from tdmpc_lab.agent.bench import linear_weights, plan_flops, update_flops
from tdmpc_lab.agent.planner import planner_iterations

WIDE = dataclasses.replace(TINY, hidden_dim=64, latent_dim=64, q_heads=3)


def test_weights_are_those_of_the_networks() -> None:
    with torch.device("meta"):
        model = WorldModel(18, 4, AgentConfig())
    found = linear_weights(18, 4, AgentConfig())
    for part in ("encoder", "dynamics", "reward", "termination", "policy"):
        linears = [p for p in getattr(model, part).parameters() if p.ndim == 2]
        assert found[part] == sum(p.numel() for p in linears), part
    assert found["q"] == sum(w.numel() for w in model.q.weights) // 5


@pytest.mark.parametrize("envs", [1, 3])
def test_a_plan(envs: int) -> None:
    agent = tiny_agent(config=WIDE)
    state, z = agent.plan_state(envs, seed=0), torch.rand(envs, 64)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        agent.planner.plan(agent.rollouts, z, state.mean, explore=True, generator=state.generator)
    iterations = planner_iterations(TINY_PLANNER, 2)
    expected = plan_flops(5, 2, WIDE, TINY_PLANNER, envs=envs, iterations=iterations)
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.05)


def test_an_update() -> None:
    agent = tiny_agent(config=WIDE)
    with FlopCounterMode(display=False) as counter:
        agent.update(random_batch(batch=32))
    expected = update_flops(5, 2, WIDE, batch_size=32)
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.1)


def test_the_reference_agent_s_plan_by_hand() -> None:
    """About 9·6·488 rows through 1.58 + 1.11 + 0.33 million weights, and 6·512 through 1.06 + 2·1.1 million."""
    found = plan_flops(18, 4, AgentConfig(), PlannerConfig(), envs=1, iterations=6)
    by_hand = 2 * (6 * 488 * (9 * 3.008e6 - 2 * 1024 * 512) + 6 * 512 * 3.26e6 + 24 * 9 * 4.06e6)
    assert found == pytest.approx(by_hand, rel=0.01)
