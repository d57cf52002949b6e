"""Discrete regression: reward and value as a distribution over bins in symlog space (TD-MPC2, section 3.2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def symlog(x: Tensor) -> Tensor:
    """sign(x) · ln(1 + |x|), elementwise."""
    return torch.sign(x) * torch.log1p(torch.abs(x))


def symexp(x: Tensor) -> Tensor:
    """Inverse of `symlog`, elementwise."""
    return torch.sign(x) * torch.expm1(torch.abs(x))


class _TwoHotLoss(torch.autograd.Function):
    """Cross-entropy with two entries of the target not zero; its gradient is softmax(logits) less that target."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, lower: Tensor, share: Tensor) -> Tensor:
        log_prob = torch.log_softmax(logits, dim=-1)
        lower, share = lower.unsqueeze(-1), share.unsqueeze(-1)
        ctx.save_for_backward(log_prob, lower, share)
        below, above = log_prob.gather(-1, lower), log_prob.gather(-1, lower + 1)
        return -((1 - share) * below + share * above).squeeze(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        log_prob, lower, share = ctx.saved_tensors
        by_logits = log_prob.exp()
        by_logits.scatter_add_(-1, lower, share - 1).scatter_add_(-1, lower + 1, -share)
        return by_logits.mul_(gradient.unsqueeze(-1)), None, None


class DiscreteRegression(nn.Module):
    """Two-hot targets, their cross-entropy, and the decoding of logits back to a number.

    `bins` centres lie evenly on [low, high] in symlog space; values outside are clamped to the ends.
    """

    centres: Tensor

    def __init__(self, *, bins: int = 101, low: float = -10.0, high: float = 10.0) -> None:
        super().__init__()
        self.bins = bins
        self.low = low
        self.high = high
        self.width = (high - low) / (bins - 1)
        self.register_buffer("centres", torch.linspace(low, high, bins), persistent=False)

    def _neighbours(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Index of the bin below each value, and the share that goes to the bin above it."""
        # clamped after the division: before it, rounding can still carry an end beyond the last bin
        position = ((symlog(value) - self.low) / self.width).clamp(0, self.bins - 1)
        # NaN gets a valid index (on a GPU an invalid one ends the process) and stays NaN in the share
        lower = position.floor().nan_to_num(0.0).clamp(0, self.bins - 2)
        return lower.long(), position - lower

    def two_hot(self, value: Tensor) -> Tensor:
        """Values (...) to probabilities (..., bins): two neighbouring bins, linear in symlog space."""
        lower, share = self._neighbours(value)
        target = torch.zeros(*value.shape, self.bins, dtype=value.dtype, device=value.device)
        target.scatter_(-1, lower.unsqueeze(-1), (1 - share).unsqueeze(-1))
        target.scatter_(-1, (lower + 1).unsqueeze(-1), share.unsqueeze(-1))
        return target

    def loss(self, logits: Tensor, value: Tensor) -> Tensor:
        """Cross-entropy of softmax(logits) with the two-hot target of `value`.

        logits: (..., bins); value broadcasts to (...). Returns (...). The two-hot vector is never built: only
        two of its entries are not zero.
        """
        value = value.expand(logits.shape[:-1])
        lower, share = self._neighbours(value)
        return _TwoHotLoss.apply(logits, lower, share)  # type: ignore[no-any-return, no-untyped-call]

    def decode(self, logits: Tensor) -> Tensor:
        """Logits (..., bins) to numbers (...): symexp of the expected bin."""
        return symexp(torch.softmax(logits, dim=-1) @ self.centres)
