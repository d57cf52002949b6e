"""Mish and the softmax over small groups, in the forms that a CPU computes fastest.

Both give what torch's own functions give, to float32 rounding; on other devices torch's own are used.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor
from torch.autograd.function import once_differentiable

# From here on mish(x) is x in float32; exp(2x) of a much larger x would overflow.
MISH_IS_IDENTITY_FROM = 20.0


class _Mish(torch.autograd.Function):
    """x · tanh(softplus(x)) with one exponential.

    With e = exp(x): tanh(ln(1 + e)) = m / (m + 1), m = e + e²/2. torch takes an exponential, a logarithm and a
    hyperbolic tangent per entry, forward and backward.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        e = x.clamp(max=MISH_IS_IDENTITY_FROM).exp_()
        m = torch.addcmul(e, e, e, value=0.5)
        return m.div_(m + 1).mul_(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """With n = m + 1 the derivative is 1 + (x (e + e²)/n − 1)/n."""
        (x,) = ctx.saved_tensors
        e = x.clamp(max=MISH_IS_IDENTITY_FROM).exp_()
        inverse = torch.addcmul(e, e, e, value=0.5).add_(1).reciprocal_()
        slope = torch.addcmul(e, e, e).mul_(x).mul_(inverse).sub_(1).mul_(inverse).add_(1)
        return slope.mul_(gradients[0])


def mish(x: Tensor) -> Tensor:
    """Mish of every entry."""
    if x.device.type == "cpu" and x.dtype == torch.float32:
        return _Mish.apply(x)  # type: ignore[no-any-return, no-untyped-call]
    return F.mish(x)


def mish_of_negative_(n: Tensor) -> Tensor:
    """Mish of −n, in place of n. Float32; for inference.

    With s = sigmoid(n): tanh(softplus(−n)) = 2/(1 + s²) − 1, so the result is n − 2n/(1 + s²): three passes, with
    the cheapest of torch's vectorised functions. A LayerNorm with negated weight and bias gives n for nothing.
    """
    if n.device.type != "cpu":
        return F.mish(n.neg_(), inplace=True)
    s = torch.sigmoid(n)
    torch.addcmul(n.new_ones(()), s, s, out=s)
    return torch.addcdiv(n, n, s, value=-2, out=n)


def group_softmax(x: Tensor, group: int) -> Tensor:
    """Softmax over groups of `group` neighbouring entries of the last axis: (..., L) to (..., L).

    torch's softmax over a last axis of a few entries works row by row, without vector instructions. With the
    entries of a group a row apart it works on many groups at once, which is worth the two transpositions.
    """
    grouped = x.reshape(*x.shape[:-1], -1, group)
    if x.device.type != "cpu":
        return torch.softmax(grouped, dim=-1).reshape(x.shape)
    return torch.softmax(grouped.transpose(-1, -2).contiguous(), dim=-2).transpose(-1, -2).reshape(x.shape)
