"""The running scale that keeps Q values of very different tasks comparable in the policy loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

PERCENTILES = (0.05, 0.95)


class RunningScale(nn.Module):
    """Exponential moving average of the 5-95 percentile range of Q, never below 1."""

    value: Tensor
    percentiles: Tensor

    def __init__(self, tau: float = 0.01) -> None:
        super().__init__()
        self.tau = tau
        self.register_buffer("value", torch.ones(()))
        self.register_buffer("percentiles", torch.tensor(PERCENTILES), persistent=False)

    @torch.no_grad()
    def update(self, q: Tensor) -> None:
        """Move towards the percentile range of `q` (any shape)."""
        ordered = q.flatten().sort().values  # torch.quantile does the same, slower
        place = self.percentiles * (len(ordered) - 1)
        below = place.floor()
        low, high = torch.lerp(ordered[below.long()], ordered[place.ceil().long()], place - below)
        self.value.lerp_((high - low).clamp(min=1.0), self.tau)
