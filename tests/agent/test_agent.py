from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from agent_fixtures import TINY, TINY_PLANNER, perturbed, tiny_agent

from tdmpc_lab.agent import Agent, discount_for, resolve_device
from tdmpc_lab.config.schema import PlannerConfig
from tdmpc_lab.errors import CheckpointError, ConfigError, ExternalError


def obs(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(("steps", "expected"), [(200, 0.975), (1000, 0.995), (5, 0.95), (100_000, 0.995), (250, 0.98)])
def test_discount_from_the_episode_length(steps, expected):
    assert discount_for(steps) == pytest.approx(expected)


def test_act_shapes_bounds_and_dtype():
    agent = tiny_agent()
    state = agent.plan_state(3, seed=0)
    action = agent.act(obs(3, 5), state, explore=True)
    assert action.shape == (3, 2)
    assert action.dtype == np.float32
    assert np.abs(action).max() <= 1


def test_planning_for_some_environments_leaves_the_others_warm_starts_alone():
    agent = tiny_agent()
    perturbed(agent.model)
    state = agent.plan_state(4, seed=0)
    agent.act(obs(4, 5), state, explore=False)
    before = state.mean.clone()
    agent.act(obs(2, 5), state, explore=False, envs=np.array([1, 3]))
    assert torch.equal(state.mean[[0, 2]], before[[0, 2]])
    assert not torch.equal(state.mean[[1, 3]], before[[1, 3]])
    state.start_episode(0)
    assert torch.count_nonzero(state.mean[0]) == 0
    assert torch.count_nonzero(state.mean[2]) > 0


def test_acting_does_not_move_the_learning_s_random_state():
    agent = tiny_agent()
    before = agent.generator.get_state()
    agent.act(obs(1, 5), agent.plan_state(1, seed=3), explore=True)
    agent.act_prior(obs(1, 5))
    assert torch.equal(before, agent.generator.get_state())


def test_prior_action_is_the_squashed_mean():
    agent = tiny_agent()
    perturbed(agent.model)
    x = obs(4, 5)
    with torch.no_grad():
        mean, _ = agent.model.policy(agent.model.encoder(torch.from_numpy(x)))
    np.testing.assert_allclose(agent.act_prior(x), torch.tanh(mean).numpy())


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="elites"):
        tiny_agent(planner=PlannerConfig(samples=16, elites=17))
    with pytest.raises(ConfigError, match="latent_dim"):
        tiny_agent(config=dataclasses.replace(TINY, latent_dim=20))


def test_weights_of_other_sizes_are_named():
    small, large = tiny_agent(), tiny_agent(config=dataclasses.replace(TINY, hidden_dim=32))
    with pytest.raises(CheckpointError, match=r"encoder\.net\.0\.weight: \(24, 5\) in the checkpoint, \(32, 5\)"):
        large.load_weights(small.state_dict())


def test_device_names():
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ConfigError, match="auto, cpu, cuda, cuda:N"):
        resolve_device("gpu0")
    missing = f"cuda:{torch.cuda.device_count() + 3}"
    with pytest.raises(ExternalError, match="cuda"):
        resolve_device(missing)


@pytest.mark.cuda
def test_cuda_agrees_with_the_cpu():
    """Same weights; plan values and one update agree within float32's reordering."""
    from agent_fixtures import batch_on, random_batch

    cpu, gpu = (Agent(5, 2, agent=TINY, planner=TINY_PLANNER, seed=1, device=d) for d in ("cpu", "cuda"))
    perturbed(cpu.model)
    gpu.model.load_state_dict(cpu.model.state_dict())
    batch = random_batch()
    on_gpu = batch_on(batch, "cuda")
    targets = batch.rewards
    for agent, data, target in ((cpu, batch, targets), (gpu, on_gpu, targets.cuda())):
        with torch.no_grad():
            next_z = agent.model.encoder(data.observations[1:])
        _, agent.losses = agent.learner.model_losses(data, next_z, target, agent.learner.draw(data))
    for name, value in cpu.losses.items():
        assert gpu.losses[name].item() == pytest.approx(value.item(), rel=1e-3), name
    assert gpu.update(on_gpu)["loss/total"].isfinite()
    action = gpu.act(obs(2, 5), gpu.plan_state(2, seed=0), explore=True)
    assert np.abs(action).max() <= 1
