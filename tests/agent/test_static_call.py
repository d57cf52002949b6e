"""Plans through static buffers, as a CUDA graph needs them; on a CPU the same path without the capture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from agent_fixtures import TINY, TINY_PLANNER, batch_on, perturbed, random_batch

from tdmpc_lab.agent import Agent
from tdmpc_lab.agent.device import ChosenPrecision
from tdmpc_lab.agent.native.choose import Kernels
from tdmpc_lab.agent.static_call import StaticCall

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


@pytest.mark.parametrize("device", DEVICES)
def test_plans_are_the_same_for_several_agents_and_batch_sizes_while_weights_change(device: str) -> None:
    plain, graphed, other = (
        Agent(5, 2, agent=TINY, planner=TINY_PLANNER, seed=seed, device=device) for seed in (1, 1, 2)
    )
    for agent in (plain, graphed, other):
        agent.kernels = Kernels("for a test", captured=agent is not plain)
        agent.use_precision(ChosenPrecision("float32", "for a test"))  # in less, a batch that is filled up rounds apart
        perturbed(agent.model, scale=0.05)
    states = {agent: {envs: agent.plan_state(envs, seed=envs) for envs in (1, 3)} for agent in (plain, graphed, other)}
    rng = np.random.default_rng(0)
    different = 0
    for k in range(3):
        for envs in (1, 3):
            for explore in (True, False):
                x = rng.normal(size=(envs, 5)).astype(np.float32)
                expected, found, third = (a.act(x, states[a][envs], explore=explore) for a in (plain, graphed, other))
                np.testing.assert_allclose(found, expected, atol=1e-5)
                different += not np.array_equal(found, third)
        for agent in (plain, graphed):
            agent.update(batch_on(random_batch(seed=k), device))
    assert len(graphed.planner._calls) == 4  # one or four environments, exploring or not
    assert different > 6  # of twelve: the two agents draw the same numbers, and may choose the same of them


def test_results_of_one_call_outlive_the_next() -> None:
    buffer = torch.zeros(2)

    def double(x: torch.Tensor) -> tuple[torch.Tensor]:
        return (torch.mul(x, 2, out=buffer),)

    call = StaticCall(double, [torch.zeros(2)])
    (first,) = call(torch.tensor([1.0, 2.0]))
    (second,) = call(torch.tensor([3.0, 4.0]))
    assert first.tolist() == [2.0, 4.0]
    assert second.tolist() == [6.0, 8.0]
