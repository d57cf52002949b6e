"""One step of Adam on gradients whose norm is clipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


class ClippedStep:
    """Steps of `optimizer`, with torch.

    Args:
        parts: all of the optimizer's parameters, by the name that their gradients' norm is told under.
        max_norm: of all gradients together; larger ones are scaled down to it.
    """

    def __init__(
        self, optimizer: torch.optim.Adam, parts: Mapping[str, Sequence[nn.Parameter]], max_norm: float
    ) -> None:
        self.optimizer = optimizer
        self.parts = parts
        self.max_norm = max_norm
        self.parameters = [p for members in parts.values() for p in members]

    def clear(self) -> None:
        """Forget the gradients of the last step."""
        for parameter in self.parameters:
            parameter.grad = None

    def __call__(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Clip and step; the gradients' norms before clipping, of all and by part."""
        norms = {
            part: torch.nn.utils.get_total_norm([p.grad for p in members if p.grad is not None])
            for part, members in self.parts.items()
        }
        total = torch.linalg.vector_norm(torch.stack(list(norms.values())))
        torch.nn.utils.clip_grads_with_norm_(self.parameters, self.max_norm, total)
        self.optimizer.step()
        self.written()
        return total, norms

    def written(self) -> None:
        """A fused step does not tell that it wrote to the weights; who keeps copies of them asks for the version."""
        torch.autograd.graph.increment_version(self.parameters)
