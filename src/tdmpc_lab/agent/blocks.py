"""Linear layers and blocks Linear → LayerNorm → Mish for training, each with a backward pass of its own.

Products are in a chosen type, with sums in float32; parameters and their gradients, LayerNorm and Mish are float32.
Between layers, activations and their gradients have the products' type. Per block the forward pass keeps the product,
LayerNorm's mean and deviation and Mish's slope, so the backward pass computes no exponential.

Shapes: R rows, N heads of an ensemble. Weights are (out, in) as `nn.Linear` has them, or (N, in, out) stacked.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

NORM_EPS = 1e-5


class Casts:
    """Copies of weights in the products' type, each made anew when the weight was written to."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._kept: dict[int, tuple[int, Tensor]] = {}

    def __call__(self, parameter: Tensor) -> Tensor:
        """The parameter's present value, without gradient."""
        if self.dtype == parameter.dtype:
            return parameter.detach()
        version, kept = self._kept.get(id(parameter), (-1, None))
        if kept is None or version != parameter._version:
            kept = parameter.detach().to(self.dtype)
            self._kept[id(parameter)] = (parameter._version, kept)
        return kept

    def forget(self) -> None:
        """Make every copy anew when it is asked for next."""
        self._kept.clear()


def linear(x: Tensor, weight: Tensor, bias: Tensor, casts: Casts) -> Tensor:
    """x (..., in) to (..., out), in the products' type."""
    rows = x.reshape(-1, x.shape[-1]).to(casts.dtype)
    out = _Linear.apply(rows, weight, bias, casts(weight).t(), casts(bias))  # type: ignore[no-untyped-call]
    return out.view(*x.shape[:-1], -1)  # type: ignore[no-any-return]


def block(x: Tensor, weight: Tensor, bias: Tensor, norm_weight: Tensor, norm_bias: Tensor, casts: Casts) -> Tensor:
    """Mish(LayerNorm(x W + b)): (..., in) to (..., out), in the products' type."""
    rows = x.reshape(-1, x.shape[-1]).to(casts.dtype)
    low = (casts(weight).t(), casts(bias))
    if torch.is_grad_enabled():
        out = _Block.apply(rows, weight, bias, norm_weight, norm_bias, *low)  # type: ignore[no-untyped-call]
    else:
        out = _norm_mish(torch.addmm(low[1], rows, low[0]), norm_weight, norm_bias)
    return out.view(*x.shape[:-1], -1)  # type: ignore[no-any-return]


def ensemble_linear(x: Tensor, weight: Tensor, bias: Tensor, low: tuple[Tensor, Tensor]) -> Tensor:
    """x (N, R, in) to (N, R, out). `low`: weight and bias in the products' type; no gradient to detached ones."""
    return _EnsembleLinear.apply(x, weight, bias, *low)  # type: ignore[no-any-return, no-untyped-call]


def ensemble_block(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    low: tuple[Tensor, Tensor],
    dropped: Tensor | None = None,
    keep: float = 1.0,
) -> Tensor:
    """Mish(Dropout(LayerNorm(x W + b))) per head: x (R, in), the same for all, or (N, R, in) to (N, R, out).

    Args:
        low: weight and bias in the products' type.
        dropped: see `networks.dropped_entries`; None for no dropout.
        keep: share of entries kept; the others are divided by it.
    """
    return _EnsembleBlock.apply(  # type: ignore[no-any-return, no-untyped-call]
        x, weight, bias, norm_weight, norm_bias, *low, dropped, keep, torch.is_grad_enabled()
    )


def _take_out_(x: Tensor, dropped: Tensor) -> None:
    if dropped.dtype == torch.bool:
        x.masked_fill_(dropped, 0.0)
    else:
        x.view(-1).index_fill_(0, dropped, 0.0)


def _norm_mish(h: Tensor, norm_weight: Tensor, norm_bias: Tensor) -> Tensor:
    """Without gradient; h (R, W) in any type, the result in the same."""
    n, _, _ = torch.native_layer_norm(h.float(), h.shape[-1:], -norm_weight, -norm_bias, NORM_EPS)
    s = torch.sigmoid(n)
    torch.addcmul(n.new_ones(()), s, s, out=s)
    return torch.addcdiv(n, n, s, value=-2, out=n).to(h.dtype)


def _norm_mish_slope(h: Tensor, norm_weight: Tensor, norm_bias: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Also mean and 1/deviation of each row, and the derivative by n = −LayerNorm(h), in h's type.

    With s = sigmoid(n) and q = 1/(1 + s²): Mish(−n) = n − 2nq, and its derivative by n is
    1 − 2q + 4n(1 − s)(q − q²).
    """
    n, mean, deviation = torch.native_layer_norm(h.float(), h.shape[-1:], -norm_weight, -norm_bias, NORM_EPS)
    s = torch.sigmoid(n)
    q = torch.addcmul(n.new_ones(()), s, s).reciprocal_()
    torch.addcmul(n, n, s, value=-1, out=s)  # n (1 − s)
    slope = torch.addcmul(q, q, q, value=-1).mul_(s).mul_(4).add_(1).sub_(q, alpha=2)
    out = torch.addcmul(n, n, q, value=-2, out=s)
    return out.to(h.dtype), mean, deviation, slope.to(h.dtype)


def _norm_mish_backward(
    gradient: Tensor,
    h: Tensor,
    mean: Tensor,
    deviation: Tensor,
    slope: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    *,
    wanted: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the product h, float32, and of LayerNorm's weight and bias, which are zero where not wanted."""
    by_norm = gradient.float() * slope
    by_h, by_weight, by_bias = torch.ops.aten.native_layer_norm_backward(
        by_norm, h.float(), h.shape[-1:], mean, deviation, -norm_weight, -norm_bias, [True, wanted, wanted]
    )
    if not wanted:
        return by_h, torch.zeros_like(norm_weight), torch.zeros_like(norm_bias)
    return by_h, -by_weight, -by_bias


class _Linear(torch.autograd.Function):
    """`linear`; `weight_in` is (in, out)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, _weight: Tensor, _bias: Tensor, weight_in: Tensor, bias_in: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight_in)
        return torch.addmm(bias_in, x, weight_in)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_in = ctx.saved_tensors
        need_x, need_weight, *_ = ctx.needs_input_grad
        by_x = gradient @ weight_in.t() if need_x else None
        if not need_weight:
            return by_x, None, None, None, None
        return by_x, (gradient.t() @ x).float(), gradient.sum(0, dtype=torch.float32), None, None


class _Block(torch.autograd.Function):
    """`block`; `weight_in` is (in, out)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        _weight: Tensor,
        _bias: Tensor,
        norm_weight: Tensor,
        norm_bias: Tensor,
        weight_in: Tensor,
        bias_in: Tensor,
    ) -> Tensor:
        h = torch.addmm(bias_in, x, weight_in)
        out, mean, deviation, slope = _norm_mish_slope(h, norm_weight, norm_bias)
        ctx.save_for_backward(x, weight_in, h, mean, deviation, slope, norm_weight, norm_bias)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_in, *kept = ctx.saved_tensors
        need_x, need_weight, *_ = ctx.needs_input_grad
        by_h, by_norm_weight, by_norm_bias = _norm_mish_backward(gradient, *kept, wanted=need_weight)
        by_bias = by_h.sum(0) if need_weight else None
        by_h = by_h.to(x.dtype)
        by_x = by_h @ weight_in.t() if need_x else None
        by_weight = (by_h.t() @ x).float() if need_weight else None
        return by_x, by_weight, by_bias, by_norm_weight, by_norm_bias, None, None


class _EnsembleLinear(torch.autograd.Function):
    """`ensemble_linear`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, _weight: Tensor, _bias: Tensor, weight_in: Tensor, bias_in: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight_in)
        return torch.baddbmm(bias_in, x, weight_in)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_in = ctx.saved_tensors
        need_x, need_weight, *_ = ctx.needs_input_grad
        by_x = torch.bmm(gradient, weight_in.transpose(1, 2)) if need_x else None
        if not need_weight:
            return by_x, None, None, None, None
        by_bias = gradient.sum(1, keepdim=True, dtype=torch.float32)
        return by_x, torch.bmm(x.transpose(1, 2), gradient).float(), by_bias, None, None


class _EnsembleBlock(torch.autograd.Function):
    """`ensemble_block`. LayerNorm and Mish go head by head, as torch's LayerNorm knows one weight at a time."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        _weight: Tensor,
        _bias: Tensor,
        norm_weight: Tensor,
        norm_bias: Tensor,
        weight_in: Tensor,
        bias_in: Tensor,
        dropped: Tensor | None,
        keep: float,
        training: bool,
    ) -> Tensor:
        heads = weight_in.shape[0]
        h = torch.baddbmm(bias_in, x.expand(heads, -1, -1), weight_in)
        norm_weight, norm_bias = (p.detach().squeeze(1) / keep for p in (norm_weight, norm_bias))
        if not training:
            parts = [_norm_mish(h[i], norm_weight[i], norm_bias[i]) for i in range(heads)]
            return torch.stack(parts)
        out, slope = torch.empty_like(h), torch.empty_like(h)
        statistics = []
        for i in range(heads):
            out[i], mean, deviation, slope[i] = _norm_mish_slope(h[i], norm_weight[i], norm_bias[i])
            statistics += [mean, deviation]
        if dropped is not None:  # before Mish in words; Mish of 0 is 0
            _take_out_(out, dropped)
            _take_out_(slope, dropped)
        ctx.keep = keep
        ctx.save_for_backward(x, weight_in, h, slope, norm_weight, norm_bias, *statistics)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_in, h, slope, norm_weight, norm_bias, *statistics = ctx.saved_tensors
        need_x, need_weight, *_ = ctx.needs_input_grad
        by_h = torch.empty_like(h)
        by_bias, by_norm_weight, by_norm_bias = [], [], []
        for i in range(len(h)):
            mean, deviation = statistics[2 * i : 2 * i + 2]
            kept = (h[i], mean, deviation, slope[i], norm_weight[i], norm_bias[i])
            full, *norms = _norm_mish_backward(gradient[i], *kept, wanted=need_weight)
            by_h[i] = full
            if need_weight:
                by_bias.append(full.sum(0, keepdim=True))
                by_norm_weight.append(norms[0].unsqueeze(0) / ctx.keep)
                by_norm_bias.append(norms[1].unsqueeze(0) / ctx.keep)
        by_x = None
        if need_x:
            by_x = torch.bmm(by_h, weight_in.transpose(1, 2))
            by_x = by_x.sum(0) if x.ndim == 2 else by_x
        if not need_weight:
            return (by_x, *[None] * 9)
        by_weight = torch.bmm(x.expand(len(h), -1, -1).transpose(1, 2), by_h).float()
        stacked = (torch.stack(p) for p in (by_bias, by_norm_weight, by_norm_bias))
        return (by_x, by_weight, *stacked, *[None] * 5)
