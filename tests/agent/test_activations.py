from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from agent_fixtures import TINY, observations, perturbed, tiny_model
from numpy_reference import mish as slow_mish
from torch import Generator

from tdmpc_lab.agent.networks import group_softmax, mish


def test_mish_equals_the_slow_reference_at_every_size_of_input():
    x = torch.cat([torch.linspace(-110, 110, 4001), torch.tensor([0.0, -0.0, 1e-30, 19.999, 20.0, 20.001, 1e6])])
    expected = torch.from_numpy(slow_mish(x.double().numpy()))
    torch.testing.assert_close(mish(x).double(), expected, rtol=1e-6, atol=1e-30)


def test_gradient_of_mish_equals_torchs_in_float64():
    x = torch.linspace(-60, 60, 4001)
    fast, exact = x.clone().requires_grad_(), x.double().requires_grad_()
    upstream = torch.randn(x.shape, generator=Generator().manual_seed(0))
    mish(fast).backward(upstream)
    F.mish(exact).backward(upstream.double())
    torch.testing.assert_close(fast.grad.double(), exact.grad, rtol=2e-6, atol=2e-6)


def test_mish_keeps_nan_and_the_input():
    x = torch.tensor([float("nan"), float("inf"), 1.0])
    kept = x.clone()
    y = mish(x)
    assert y[0].isnan()
    assert y[1] == float("inf")
    torch.testing.assert_close(x, kept, equal_nan=True)


def test_group_softmax_equals_torchs_forward_and_backward():
    generator = Generator().manual_seed(1)
    for shape, group in (((32,), 8), ((5, 24), 4), ((2, 3, 64), 8)):
        x = 40 * torch.randn(*shape, generator=generator)  # far beyond what exp takes without the maximum
        x[..., :group] += 500
        upstream = torch.randn(*shape, generator=generator)
        fast, plain = x.clone().requires_grad_(), x.clone().requires_grad_()
        y = group_softmax(fast, group)
        expected = torch.softmax(plain.unflatten(-1, (-1, group)), -1).flatten(-2)
        torch.testing.assert_close(y, expected)
        assert y.is_contiguous()
        y.backward(upstream)
        expected.backward(upstream)
        torch.testing.assert_close(fast.grad, plain.grad)


def test_a_latent_shared_by_all_samples_gives_what_its_copies_give():
    model = perturbed(tiny_model(), scale=0.3)
    action = 2 * torch.rand(2, 7, 2, generator=Generator().manual_seed(3)) - 1
    with torch.no_grad():
        z = model.encoder(observations(2, 5)).unsqueeze(1)  # (E, 1, L)
        copies = z.expand(-1, 7, -1)
        torch.testing.assert_close(model.dynamics(z, action), model.dynamics(copies, action), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(model.reward(z, action), model.reward(copies, action), rtol=1e-4, atol=1e-4)
    assert model.dynamics(z, action).shape == (2, 7, TINY.latent_dim)
