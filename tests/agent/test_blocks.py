"""The networks as the update computes them against the networks as they are: values and gradients."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from agent_fixtures import TINY, perturbed, random_batch, tiny_agent
from gradients import PARTS, AsTheyAre, gradients
from torch import Generator

from tdmpc_lab.agent import Agent, AgentConfig
from tdmpc_lab.agent.bench import random_batch as sized_batch
from tdmpc_lab.agent.networks import dropped_entries
from tdmpc_lab.agent.training_model import TrainingModel

MIDDLE = AgentConfig(latent_dim=128, hidden_dim=128, horizon=3, termination_dim=64, dropout=0.0, discount=0.95)


@pytest.mark.parametrize(
    "config",
    [
        TINY,
        dataclasses.replace(TINY, hidden_layers=1, q_heads=2, policy="clipped_gaussian"),
        dataclasses.replace(TINY, hidden_layers=3, simnorm_dim=4),
    ],
    ids=["tiny", "one layer", "three layers"],
)
def test_losses_and_gradients_are_those_of_the_networks_as_they_are(config: AgentConfig) -> None:
    agent = tiny_agent(config=config)
    perturbed(agent.model)
    batch = random_batch()
    expected, losses = gradients(agent, batch, AsTheyAre(agent.model))
    found, ours = gradients(agent, batch, TrainingModel(agent.model))
    for part in PARTS:
        torch.testing.assert_close(found[part], expected[part], rtol=1e-3, atol=1e-5, msg=part)
    assert ours == pytest.approx(losses, rel=1e-4)


@pytest.mark.parametrize("learned", [False, True], ids=["random", "learned"])
def test_gradients_in_bfloat16_are_within_a_hundredth(learned: bool) -> None:
    """Per part and as a whole, at random weights and after some learning."""
    agent = Agent(18, 4, agent=MIDDLE, seed=1, device="cpu")
    perturbed(agent.model, scale=0.02)
    batch = sized_batch(18, 4, agent.config, 256, agent.device)
    for _ in range(40 if learned else 0):
        agent.update(batch)
    expected, _ = gradients(agent, batch, AsTheyAre(agent.model))
    found, _ = gradients(agent, batch, TrainingModel(agent.model, torch.bfloat16))
    for part in PARTS:
        ratio = found[part].norm() / expected[part].norm()
        assert ratio.item() == pytest.approx(1.0, abs=1e-2), part
        assert torch.cosine_similarity(found[part], expected[part], 0) > 0.9995, part


def test_weights_that_change_are_cast_again() -> None:
    agent = tiny_agent()
    perturbed(agent.model)
    nets = TrainingModel(agent.model, torch.bfloat16)
    observation = random_batch().observations
    before = nets.encoder(observation)
    assert torch.equal(before, nets.encoder(observation))
    with torch.no_grad():
        agent.model.encoder.net[0].weight.mul_(2)
    assert not torch.equal(before, nets.encoder(observation))
    z, a = torch.rand(3, 16, generator=Generator().manual_seed(0)), torch.zeros(3, 2)
    online, target = nets.q(z, a), nets.q(z, a, target=True)
    agent.update(random_batch())
    assert not torch.equal(online, nets.q(z, a))
    with torch.no_grad():
        for p in agent.model.q.parameters():
            p.add_(1.0)
    agent.model.update_target(0.5)
    assert not torch.equal(target, nets.q(z, a, target=True))


@pytest.mark.parametrize("rate", [0.01, 0.3])
def test_dropout_takes_out_entries_one_by_one(rate: float) -> None:
    """Their share, how it varies, and that neighbours are independent, over many draws."""
    generator = Generator().manual_seed(0)
    shape = (5, 40, 50)
    taken = torch.zeros(300, 10_000)
    for row in taken:
        positions = dropped_entries(shape, rate, generator)
        assert positions.numel() == positions.unique().numel()
        row[positions] = 1
    share = taken.mean(1)
    assert share.mean().item() == pytest.approx(rate, rel=0.02)
    assert share.std().item() == pytest.approx((rate * (1 - rate) / 10_000) ** 0.5, rel=0.15)
    assert taken.mean(0).std().item() == pytest.approx((rate * (1 - rate) / 300) ** 0.5, rel=0.1)
    assert (taken[:, 1:] * taken[:, :-1]).mean().item() == pytest.approx(rate**2, rel=0.1)


def test_dropout_in_training_keeps_the_mean_and_its_gradient() -> None:
    config = dataclasses.replace(TINY, dropout=0.25, hidden_dim=400, hidden_layers=1)
    agent = tiny_agent(config=config)
    perturbed(agent.model, scale=0.05)
    nets = TrainingModel(agent.model)
    z, a = torch.rand(3, 16, generator=Generator().manual_seed(0)), torch.zeros(3, 2)
    plain = nets.q(z, a)
    torch.testing.assert_close(plain, agent.model.q(z, a))

    def dropped(seed):
        return dropped_entries((5, 3, 400), 0.25, Generator().manual_seed(seed))

    one = nets.q(z, a, dropped=dropped(1))
    torch.testing.assert_close(one, agent.model.q(z, a, dropped=dropped(1)))
    many = torch.stack([nets.q(z, a, dropped=dropped(k)).detach() for k in range(400)])
    assert (many.mean(0) - plain).abs().mean() < 0.5 * many.std(0).mean()
    one.sum().backward()  # the biases behind dropped entries get no gradient
    none = (agent.model.q.norm_biases[0].grad == 0).float().mean().item()
    assert none == pytest.approx(0.25**3, abs=0.01)
