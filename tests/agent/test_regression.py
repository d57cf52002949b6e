from __future__ import annotations

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Generator

from tdmpc_lab.agent.regression import DiscreteRegression, symexp, symlog

REFERENCE = DiscreteRegression()


def test_symlog_by_hand():
    x = torch.tensor([0.0, 1.0, -1.0, math.e - 1, -200.0])
    expected = torch.tensor([0.0, math.log(2), -math.log(2), 1.0, -math.log(201)])
    torch.testing.assert_close(symlog(x), expected)
    torch.testing.assert_close(symexp(symlog(x)), x)


def test_two_hot_of_a_value_between_two_bins_by_hand():
    # symexp(0.25) lies a quarter of the way from bin 51 (0.2) to bin 52 (0.4)
    target = REFERENCE.two_hot(symexp(torch.tensor(0.25)))
    assert target.nonzero().flatten().tolist() == [51, 52]
    torch.testing.assert_close(target[51:53], torch.tensor([0.75, 0.25]), atol=1e-5, rtol=0)


def test_values_outside_the_bins_land_on_the_ends():
    target = REFERENCE.two_hot(torch.tensor([1e9, -1e9]))
    torch.testing.assert_close(target[0, 100], torch.tensor(1.0))
    torch.testing.assert_close(target[1, 0], torch.tensor(1.0))


@settings(deadline=None, max_examples=200)
@given(st.floats(min_value=-22000.0, max_value=22000.0, width=32))
def test_two_hot_round_trip(value):
    """The logarithm of the two-hot target decodes to the value itself."""
    target = REFERENCE.two_hot(torch.tensor(value))
    assert target.sum().item() == pytest.approx(1.0, abs=1e-5)
    assert (target >= 0).all()
    assert (target > 0).sum() <= 2
    decoded = REFERENCE.decode(torch.log(target)).item()
    assert decoded == pytest.approx(value, rel=2e-3, abs=1e-4)


@settings(deadline=None, max_examples=50)
@example(4, -15.71000592190408, 0.5, 1.0)  # the clamped end lies a rounding error beyond the last bin
@given(st.integers(3, 64), st.floats(-20, -0.5), st.floats(0.5, 20), st.floats(-30.0, 30.0))
def test_round_trip_for_any_bins(bins, low, high, value):
    regression = DiscreteRegression(bins=bins, low=low, high=high)
    target = regression.two_hot(torch.tensor(value))
    assert (target >= 0).all()
    logits = torch.linspace(-1, 1, bins)
    explicit = -(target * torch.log_softmax(logits, -1)).sum()
    torch.testing.assert_close(regression.loss(logits, torch.tensor(value)), explicit, rtol=1e-4, atol=1e-5)
    clamped = symexp(symlog(torch.tensor(value)).clamp(low, high)).item()
    assert regression.decode(torch.log(regression.two_hot(torch.tensor(value)))).item() == pytest.approx(
        clamped, rel=5e-3, abs=1e-3
    )


def test_loss_equals_the_explicit_cross_entropy():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 7, 101, generator=generator)
    value = 100 * torch.randn(7, generator=generator)  # broadcasts over the first axis
    explicit = -(REFERENCE.two_hot(value) * torch.log_softmax(logits, -1)).sum(-1)
    torch.testing.assert_close(REFERENCE.loss(logits, value), explicit)


def test_loss_of_equal_logits_is_log_of_the_bin_count():
    assert REFERENCE.loss(torch.zeros(101), torch.tensor(3.0)).item() == pytest.approx(math.log(101), rel=1e-6)
    assert REFERENCE.decode(torch.zeros(101)).item() == pytest.approx(0.0, abs=1e-5)


def test_nan_stays_visible_in_the_loss():
    loss = REFERENCE.loss(torch.zeros(3, 101), torch.tensor([1.0, float("nan"), float("inf")]))
    assert loss.isnan().tolist() == [False, True, False]


def test_the_loss_and_its_gradient_are_those_of_the_whole_target():
    regression = DiscreteRegression(bins=21, low=-3.0, high=3.0)
    generator = Generator().manual_seed(0)
    logits = torch.randn(2, 50, 21, generator=generator, requires_grad=True)
    value = 30 * torch.randn(50, generator=generator)  # some beyond the ends
    weight = torch.rand(2, 50, generator=generator)
    expected = -(regression.two_hot(value) * torch.log_softmax(logits, -1)).sum(-1)
    (by_hand,) = torch.autograd.grad((weight * expected).sum(), logits)
    found = regression.loss(logits, value)
    (gradient,) = torch.autograd.grad((weight * found).sum(), logits)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient, by_hand, rtol=1e-4, atol=1e-6)
