"""Losses, decoded values and Adam's steps of the compiled kernels, against torch's in float64 and float32."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Generator, Tensor, nn

from tdmpc_lab.agent.clipped_step import ClippedStep
from tdmpc_lab.agent.native.learning import NativeClippedStep, NativeRegression
from tdmpc_lab.agent.native.library import BACKENDS
from tdmpc_lab.agent.regression import DiscreteRegression

pytestmark = pytest.mark.xdist_group("native")


@pytest.fixture(params=[5, 16, 33, 101])
def regressions(request, library, backend) -> tuple[NativeRegression, DiscreteRegression]:
    plain = DiscreteRegression(bins=request.param)
    return NativeRegression(library, BACKENDS.index(backend), plain), plain


def logits_of(bins: int, *shape: int, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(*shape, bins, generator=Generator().manual_seed(bins))


@pytest.mark.parametrize(("lead", "value_shape"), [((7,), (7,)), ((3, 5, 70), (5, 70)), ((2, 3), ()), ((4, 3), (4, 1))])
def test_loss_and_its_gradient_are_torchs_in_double(regressions, lead, value_shape) -> None:
    native, plain = regressions
    logits = logits_of(plain.bins, *lead).requires_grad_()
    value = 300 * torch.randn(value_shape, generator=Generator().manual_seed(1))
    weight = torch.randn(lead, generator=Generator().manual_seed(2))

    exact = logits.detach().double().requires_grad_()
    wanted = plain.loss(exact, value.double())
    found = native.loss(logits, value)
    assert found.shape == lead
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-4)
    (by,) = torch.autograd.grad(found, logits, weight)
    (by_exact,) = torch.autograd.grad(wanted, exact, weight.double())
    torch.testing.assert_close(by.double(), by_exact, rtol=1e-4, atol=2e-5)


def test_decoded_values_and_their_gradient_are_torchs_in_double(regressions) -> None:
    native, plain = regressions
    logits = logits_of(plain.bins, 2, 131).requires_grad_()
    weight = torch.randn(2, 131, generator=Generator().manual_seed(2))
    exact = logits.detach().double().requires_grad_()
    x = torch.softmax(exact, -1) @ plain.centres.double()
    wanted = torch.sign(x) * torch.expm1(x.abs())
    found = native.decode(logits)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-5)
    (by,) = torch.autograd.grad(found, logits, weight)
    (by_exact,) = torch.autograd.grad(wanted, exact, weight.double())
    assert (by - by_exact).norm() < 1e-4 * by_exact.norm()


@pytest.mark.parametrize("scale", [0.0, 1e3, 1e8])
def test_logits_of_any_size_are_taken(regressions, scale) -> None:
    native, plain = regressions
    logits = logits_of(plain.bins, 40, scale=scale)
    value = torch.linspace(-1e5, 1e5, 40)
    torch.testing.assert_close(native.loss(logits, value), plain.loss(logits, value), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(native.decode(logits), plain.decode(logits), rtol=1e-4, atol=1e-5)


def test_nan_stays_in_its_row(regressions) -> None:
    native, plain = regressions
    logits = logits_of(plain.bins, 4)
    logits[1, plain.bins - 1] = torch.nan
    value = torch.tensor([1.0, 1.0, torch.nan, 1.0])
    assert native.decode(logits).isnan().tolist() == [False, True, False, False]
    assert native.loss(logits, value).isnan().tolist() == [False, True, True, False]


class Trained:
    """Two parts with two learning rates, one of them larger than a kernel's piece of work."""

    def __init__(self, make) -> None:
        generator = Generator().manual_seed(0)
        shapes = {"small": [(3,), (5, 7)], "large": [(200, 130), (1,)]}
        self.parts = {
            name: [nn.Parameter(torch.randn(shape, generator=generator)) for shape in every]
            for name, every in shapes.items()
        }
        groups = [{"params": self.parts["small"], "lr": 1e-3}, {"params": self.parts["large"]}]
        self.optimizer = torch.optim.Adam(groups, lr=1e-2, eps=1e-5, fused=True)
        self.parameters = [p for members in self.parts.values() for p in members]
        self.use(make)

    def use(self, make) -> None:
        self.step = make(self.optimizer, self.parts, 20.0)

    def run(self, seeds: range) -> list[Tensor]:
        told = []
        for seed in seeds:
            generator = Generator().manual_seed(seed)
            for p in self.parameters:  # the norm is above the limit in the first, below it in the others
                p.grad = torch.randn(p.shape, generator=generator) * (1.0 if seed == 0 else 0.02)
            total, norms = self.step()
            told += [total, *norms.values()]
        return told


@pytest.fixture
def make(library, backend):
    return lambda *arguments: NativeClippedStep(library, BACKENDS.index(backend), *arguments)


def same(found: Trained, wanted: Trained) -> None:
    for a, b in zip(found.parameters, wanted.parameters, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
        for name, kept in wanted.optimizer.state[b].items():
            torch.testing.assert_close(found.optimizer.state[a][name], kept, rtol=1e-5, atol=1e-7)


def test_steps_are_torchs(make) -> None:
    found, wanted = Trained(make), Trained(ClippedStep)
    torch.testing.assert_close(found.run(range(6)), wanted.run(range(6)), rtol=1e-5, atol=1e-6)
    same(found, wanted)


def test_one_step_by_hand(make) -> None:
    """At first the averages' corrections cancel: every entry moves by the learning rate against its gradient."""
    p = nn.Parameter(torch.tensor([1.0, 2.0]))
    step = make(torch.optim.Adam([p], lr=0.1, fused=True), {"only": [p]}, 1.0)
    version = p._version
    p.grad = torch.tensor([3.0, -4.0])
    total, norms = step()
    assert (total.item(), norms["only"].item()) == (5.0, 5.0)
    torch.testing.assert_close(p.detach(), torch.tensor([0.9, 2.1]))
    kept = step.optimizer.state[p]
    torch.testing.assert_close(kept["exp_avg"], torch.tensor([0.06, -0.08]))
    torch.testing.assert_close(kept["exp_avg_sq"], torch.tensor([0.00036, 0.00064]))
    assert p._version > version
    step.clear()
    assert p.grad is None


def test_either_goes_on_where_the_other_stopped(make) -> None:
    found, wanted = Trained(make), Trained(ClippedStep)
    found.run(range(2))
    found.use(ClippedStep)
    found.run(range(2, 4))
    found.use(make)
    found.run(range(4, 6))
    wanted.run(range(6))
    same(found, wanted)


def test_loaded_state_and_moved_parameters_are_seen(make) -> None:
    found, wanted = Trained(make), Trained(ClippedStep)
    wanted.run(range(3))
    wanted.optimizer.param_groups[0]["lr"] *= 0.5
    found.run(range(1))
    found.optimizer.load_state_dict(copy.deepcopy(wanted.optimizer.state_dict()))
    for a, b in zip(found.parameters, wanted.parameters, strict=True):
        a.data = b.detach().clone()
    found.run(range(3, 5))
    wanted.run(range(3, 5))
    same(found, wanted)


def test_a_parameter_without_a_gradient_is_left_alone(make) -> None:
    found, wanted = Trained(make), Trained(ClippedStep)
    for trained in (found, wanted):
        trained.run(range(1))
        for seed, without in ((1, True), (2, False)):
            generator = Generator().manual_seed(seed)
            for p in trained.parameters:
                p.grad = torch.randn(p.shape, generator=generator)
            if without:
                trained.parameters[1].grad = None
            trained.step()
    assert [int(found.optimizer.state[p]["step"]) for p in found.parameters] == [3, 2, 3, 3]
    same(found, wanted)


def test_a_gradient_that_lies_on_its_side_is_read_right(make) -> None:
    """torch's own fused step takes its entries in the order of memory."""
    found, wanted = Trained(make), Trained(ClippedStep)
    for p, q in zip(found.parameters, wanted.parameters, strict=True):
        turned = torch.randn(p.shape[::-1], generator=Generator().manual_seed(3))
        p.grad = turned.permute(*range(p.dim())[::-1])
        q.grad = p.grad.contiguous()
    found.step()
    wanted.step()
    same(found, wanted)


def test_nan_reaches_the_weights(make) -> None:
    """As in torch: a norm that is no number spoils every weight, which the training notices."""
    trained = Trained(make)
    for p in trained.parameters:
        p.grad = torch.ones_like(p)
    trained.parameters[0].grad[0] = torch.nan
    total, norms = trained.step()
    assert total.isnan()
    assert norms["small"].isnan()
    assert not norms["large"].isnan()
    assert all(p.isnan().all() for p in trained.parameters)


def test_any_number_of_threads_gives_the_same_bits(make, regressions) -> None:
    native, plain = regressions
    logits = logits_of(plain.bins, 300)
    results = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            trained = Trained(make)
            told = trained.run(range(3))
            x = logits.clone().requires_grad_()
            loss, value = native.loss(x, torch.ones(300)), native.decode(x)
            (by,) = torch.autograd.grad(loss.sum() + value.sum(), x)
            results.append([*told, *trained.parameters, loss, value, by])
    finally:
        torch.set_num_threads(threads)
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)
