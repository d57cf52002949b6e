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
    def moved(self, q: Tensor) -> Tensor:
        """The value moved towards the percentile range of `q` (any shape); the present one stays."""
        ordered = q.flatten().sort().values  # torch.quantile does the same, slower
        place = self.percentiles * (len(ordered) - 1)
        below = place.floor()
        low, high = torch.lerp(ordered[below.long()], ordered[place.ceil().long()], place - below)
        return self.value.lerp((high - low).clamp(min=1.0), self.tau)
