from __future__ import annotations

import math

import numpy as np
import torch
from agent_fixtures import TINY, observations, perturbed, tiny_model
from numpy_reference import Reference
from torch import Generator

from tdmpc_lab.agent.policy import Policy, distribution


def test_squashed_gaussian_by_hand():
    mean, log_std, eps = torch.tensor([0.3, -0.2]), torch.tensor([-1.0, 0.5]), torch.tensor([0.7, -1.1])
    sample = distribution("squashed_gaussian", mean, log_std, eps, "gaussian")
    u = [0.3 + 0.7 * math.exp(-1.0), -0.2 - 1.1 * math.exp(0.5)]
    gaussian = sum(-0.5 * e**2 - s - 0.5 * math.log(2 * math.pi) for e, s in zip([0.7, -1.1], [-1.0, 0.5], strict=True))
    log_prob = gaussian - sum(math.log(1 - math.tanh(v) ** 2 + 1e-6) for v in u)
    torch.testing.assert_close(sample.action, torch.tanh(torch.tensor(u)))
    torch.testing.assert_close(sample.mean, torch.tanh(mean))
    torch.testing.assert_close(sample.log_prob.item(), log_prob, rtol=1e-5, atol=1e-6)
    entropy = -log_prob * (gaussian * 2 / (log_prob + 1e-8))
    torch.testing.assert_close(sample.entropy.item(), entropy, rtol=1e-5, atol=1e-6)


def test_clipped_gaussian_by_hand():
    mean, log_std, eps = torch.tensor([0.3]), torch.tensor([0.0]), torch.tensor([2.0])
    sample = distribution("clipped_gaussian", mean, log_std, eps, "gaussian")
    assert sample.action.item() == 1.0  # tanh(0.3) + 2, clamped
    gaussian = -0.5 * 4 - 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(sample.log_prob.item(), gaussian, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(sample.entropy.item(), -gaussian, rtol=1e-5, atol=1e-5)
    inside = distribution("clipped_gaussian", mean, log_std, torch.tensor([0.1]), "gaussian")
    torch.testing.assert_close(inside.action.item(), math.tanh(0.3) + 0.1, rtol=1e-5, atol=1e-6)


def test_log_density_integrates_to_one():
    """The squashed density over (−1, 1), by a fine sum: an error in the correction would show here."""
    a = torch.linspace(-0.99999, 0.99999, 200_001, dtype=torch.float64).unsqueeze(-1)
    mean, log_std = torch.tensor([0.4], dtype=torch.float64), torch.tensor([-0.5], dtype=torch.float64)
    eps = (torch.atanh(a) - mean) / log_std.exp()
    density = distribution(
        "squashed_gaussian", mean.expand_as(eps), log_std.expand_as(eps), eps, "gaussian"
    ).log_prob.exp()
    assert abs(torch.trapezoid(density, a.squeeze(-1)).item() - 1) < 1e-3


def test_log_std_bounds_and_bounded_actions():
    model = perturbed(tiny_model(), scale=3.0)
    z = model.encoder(observations(500, 5))
    mean, log_std = model.policy(z)
    assert log_std.min() >= -10
    assert log_std.max() <= 2
    eps = torch.randn(mean.shape, generator=Generator().manual_seed(0))
    assert distribution("squashed_gaussian", mean, log_std, eps, "squashed").action.abs().max() <= 1


def test_policy_equals_the_slow_reference():
    model = perturbed(tiny_model())
    reference = Reference(model, TINY)
    z = np.random.default_rng(0).dirichlet(np.ones(8), size=2).flatten()
    eps = np.array([0.4, -1.3])
    action, gaussian, squashed = reference.policy(z, eps)
    mean, log_std = model.policy(torch.tensor(z, dtype=torch.float32))
    ours = distribution("squashed_gaussian", mean, log_std, torch.tensor(eps, dtype=torch.float32), "gaussian")
    np.testing.assert_allclose(ours.action.detach(), action, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours.log_prob.item(), squashed, rtol=1e-3)
    np.testing.assert_allclose(ours.entropy.item(), -gaussian * 2, rtol=1e-3)


def test_gradients_reach_both_heads():
    policy = Policy(16, 2, 12, 1, head="squashed_gaussian", log_std_min=-10, log_std_max=2)
    mean, log_std = policy(torch.rand(4, 16, generator=Generator().manual_seed(0)))
    eps = torch.randn(mean.shape, generator=Generator().manual_seed(1))
    sample = distribution("squashed_gaussian", mean, log_std, eps, "squashed")
    (sample.action.sum() + sample.entropy.sum()).backward()
    for p in policy.parameters():
        assert p.grad is not None
        assert p.grad.abs().sum() > 0
