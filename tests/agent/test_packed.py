"""The rollouts that plan against the networks as they are, fed with the same random numbers."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from agent_fixtures import TINY, observations, perturbed, random_batch, tiny_agent
from torch import Generator, Tensor

from tdmpc_lab.agent import AgentConfig, PlannerConfig, WorldModel
from tdmpc_lab.agent.packed_rollouts import PackedRollouts
from tdmpc_lab.agent.planner import MPPI
from tdmpc_lab.agent.rollouts import ModelRollouts

PLANNER = PlannerConfig(samples=48, iterations=3, elites=8, policy_trajectories=6)
MIDDLE = AgentConfig(latent_dim=128, hidden_dim=128, horizon=4, termination_dim=64)


def both(model: WorldModel, config: AgentConfig, dtype: torch.dtype = torch.float32):
    settings = {"horizon": config.horizon, "discount": 0.95}
    mppi = MPPI(PLANNER, **settings)
    return mppi, ModelRollouts(model, **settings), PackedRollouts(model, dtype=dtype, **settings)


@torch.no_grad()
def with_some_done(model: WorldModel, z: Tensor) -> WorldModel:
    """Let the termination head fire for some sequences and not for others."""
    action = 2 * torch.rand(len(z), 64, model.action_dim, generator=Generator().manual_seed(1)) - 1
    logits = model.termination(model.dynamics(z.unsqueeze(1).expand(-1, 64, -1), action))
    model.termination.mlp[-1].bias -= logits.quantile(0.9)
    return model


@pytest.mark.parametrize("envs", [1, 3])
@pytest.mark.parametrize(
    "config",
    [
        TINY,
        dataclasses.replace(TINY, simnorm_dim=4, hidden_layers=1, policy="clipped_gaussian"),
        dataclasses.replace(TINY, hidden_layers=3, q_heads=2, horizon=1),
    ],
    ids=["tiny", "one layer", "two heads"],
)
@pytest.mark.parametrize("rows", [None, 50, 7], ids=["whole", "blocks", "small blocks"])
@torch.no_grad()
def test_the_same_plan_as_with_the_networks_as_they_are(config: AgentConfig, envs: int, rows: int | None) -> None:
    model = perturbed(WorldModel(5, 2, config, seed=0))
    z = model.encoder(observations(envs, 5))
    mppi, plain, packed = both(with_some_done(model, z), config)
    packed._rows = rows or packed._rows
    draws = mppi.draw(envs, 2, config.q_heads, Generator().manual_seed(2))
    actions, expected = plain.propose(plain.start(z), draws.proposals)
    found_actions, found = packed.propose(packed.start(z), draws.proposals)
    torch.testing.assert_close(found_actions, actions, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.value, expected.value, rtol=1e-4, atol=1e-4)
    drawn = draws.candidates[0].clamp(-1, 1)
    found, expected = packed.roll(packed.start(z), drawn), plain.roll(plain.start(z), drawn)
    assert torch.equal(found.alive, expected.alive)
    assert 0 < expected.alive.mean() < 1
    # no sequence is done from here on: those done at the same step have nearly the same value, and rounding chooses
    model.termination.mlp[-1].bias -= 1000.0
    for explore in (True, False):
        mean = torch.zeros(envs, config.horizon, 2)
        ours, theirs = (mppi.search(r, z, mean, draws, explore=explore) for r in (packed, plain))
        for name in ("action", "mean", "std", "value"):
            torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), rtol=1e-3, atol=1e-4, msg=name)


@torch.no_grad()
def test_without_policy_trajectories() -> None:
    model = perturbed(WorldModel(5, 2, TINY, seed=0))
    _, plain, packed = both(model, TINY)
    mppi = MPPI(dataclasses.replace(PLANNER, policy_trajectories=0), horizon=3, discount=0.95)
    z = model.encoder(observations(2, 5))
    draws = mppi.draw(2, 2, 5, Generator().manual_seed(2))
    ours, theirs = (mppi.search(r, z, torch.zeros(2, 3, 2), draws, explore=False) for r in (packed, plain))
    torch.testing.assert_close(ours.mean, theirs.mean, rtol=1e-3, atol=1e-4)


def test_weights_that_change_in_place_are_followed() -> None:
    """By an update, and by loading others: the copies must never be those of before."""
    agent = tiny_agent()
    perturbed(agent.model)
    mppi, plain, packed = both(agent.model, TINY)
    z = torch.softmax(observations(2, 2, 8), -1).flatten(1)
    draws = mppi.draw(2, 2, 5, Generator().manual_seed(2))
    mean = torch.zeros(2, 3, 2)

    def plans() -> tuple[Tensor, Tensor]:
        ours, theirs = (mppi.search(r, z, mean, draws, explore=False) for r in (packed, plain))
        torch.testing.assert_close(ours.value, theirs.value, rtol=1e-3, atol=1e-4)
        return ours.value.clone(), theirs.value

    before, _ = plans()
    agent.update(random_batch())
    after, _ = plans()
    assert not torch.equal(before, after)
    agent.load_weights({"model": perturbed(WorldModel(5, 2, TINY, seed=7)).state_dict()})
    loaded, _ = plans()
    assert not torch.equal(after, loaded)


@torch.no_grad()
def overlap(a: Tensor, b: Tensor, elites: int) -> float:
    """Share of the best sequences (E, N) that both choose."""
    chosen = [set(v[e].topk(elites).indices.tolist()) for e in range(len(a)) for v in (a, b)]
    return sum(len(x & y) for x, y in zip(chosen[::2], chosen[1::2], strict=True)) / (elites * len(a))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_sixteen_bits_rank_sequences_as_float32_does(dtype: torch.dtype) -> None:
    model = perturbed(WorldModel(18, 4, MIDDLE, seed=0), scale=0.05)
    mppi, plain, packed = both(model, MIDDLE, dtype)
    z = model.encoder(observations(3, 18))
    generator = Generator().manual_seed(2)
    actions = 2 * torch.rand(3, 512, 4, 4, generator=generator) - 1
    noise = torch.randn(3, 512, 4, generator=generator)
    heads = torch.tensor([4, 2])
    ours, theirs = (mppi.sequence_value(r, r.roll(r.start(z), actions), noise, heads) for r in (packed, plain))
    for env in range(3):
        assert torch.corrcoef(torch.stack([ours[env], theirs[env]]))[0, 1] > 0.99
    assert overlap(ours, theirs, 64) > 0.95
