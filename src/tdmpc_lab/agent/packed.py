"""A world model's weights laid out for the planner. Used by `tdmpc_lab.agent.packed_rollouts`.

What differs from the networks as they are (`ModelRollouts`):

- The latent's entries are put in another order, in which those of one SimNorm group lie L/group apart: then its
  softmax works on whole vectors. The weights that make and read latents are permuted once, the latents never.
- LayerNorm's weight and bias are negated: see `mish_of_negative_`.
- What reads the latent alone (policy, termination) gets zero weights for the action beside it, so that latents and
  actions lie in one array that all networks read.
- The first layers meet the latent that a plan starts at once, not once per sequence.
- Of the Q ensemble the two heads in use are computed.
- Products are in `dtype`, with sums in float32; LayerNorm, Mish, SimNorm and all values are float32.
- On a CPU the sequences are taken in blocks whose activations stay in the cache.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tdmpc_lab.agent.world_model import WorldModel


@dataclass(frozen=True)
class PackedLayer:
    """One Linear and, in hidden layers and at the end of the dynamics, its LayerNorm. All heads of an ensemble
    are stacked in the first dimension."""

    weight: Tensor  # (in, out), of the products' type
    bias: Tensor  # (out,), of the same type
    norm_weight: Tensor | None = None  # (out,) float32, negated in hidden layers
    norm_bias: Tensor | None = None

    def head(self, index: int | Tensor) -> PackedLayer:
        """One head of a stack; a tensor (1,) is read on the device."""
        parts = (self.weight, self.bias, self.norm_weight, self.norm_bias)
        if isinstance(index, int):
            return PackedLayer(*(p if p is None else p[index] for p in parts))  # type: ignore[arg-type]
        return PackedLayer(*(p if p is None else p.index_select(0, index).squeeze(0) for p in parts))  # type: ignore[arg-type]


class PackedModel:
    """Copies of a world model's weights in the order and type of the planner's products.

    The copies keep their place in memory; `refresh` fills them anew once the model's own weights have changed.
    """

    def __init__(self, model: WorldModel, dtype: torch.dtype) -> None:
        self.model = model
        self.dtype = dtype
        self.latent_dim, self.action_dim = model.latent_dim, model.action_dim
        self.group = model.dynamics.simnorm.group
        self.device = model.regression.centres.device
        self._copies: list[tuple[Tensor, Tensor]] = []  # (copy, original), views of one shape
        self._negated: list[Tensor] = []
        self.dynamics = self._layers(model.dynamics.net)
        self.dynamics[-1] = self._to_latent(*list(model.dynamics.net)[-2:])
        self.reward = self._layers(model.reward.net)
        self.policy = self._layers(model.policy.net)
        self.termination = [] if model.termination is None else self._layers(model.termination.mlp)
        self.q = self._ensemble()
        heads = (model.policy.mean_head, model.policy.log_std_head)
        self.policy_weight = self._stacked([h.weight for h in heads], torch.float32).t()  # (hidden, 2A)
        self.policy_bias = self._stacked([h.bias for h in heads], torch.float32)
        parts = (model.dynamics, model.reward, model.termination, model.q, model.policy)
        self._parameters = [p for part in parts if part is not None for p in part.parameters()]
        self._stamp: tuple[int, ...] | None = None

    @torch.no_grad()
    def refresh(self) -> None:
        """Copy the weights again if any was written to since the last time."""
        stamp = tuple(p._version for p in self._parameters)
        if stamp == self._stamp:
            return
        torch._foreach_copy_([copy for copy, _ in self._copies], [original for _, original in self._copies])
        torch._foreach_neg_(self._negated)
        self._stamp = stamp

    def _new(self, like: Tensor, dtype: torch.dtype) -> Tensor:
        with torch.inference_mode(False):
            return torch.zeros(like.shape, dtype=dtype, device=self.device)

    def _copy(self, original: Tensor, dtype: torch.dtype) -> Tensor:
        copy = self._new(original, dtype)
        self._copies.append((copy, original.detach()))
        return copy

    def _stacked(self, originals: list[Tensor], dtype: torch.dtype) -> Tensor:
        """One copy of several tensors, one below the other."""
        with torch.inference_mode(False):
            copy = self._new(torch.cat([o.detach() for o in originals]), dtype)
        self._copies += zip(copy.split([len(o) for o in originals]), (o.detach() for o in originals), strict=True)  # type: ignore[no-untyped-call]
        return copy

    def grouped(self, x: Tensor, dim: int) -> Tensor:
        """Entries of a latent along `dim` as (L/group, group), turned to the packed order (group, L/group)."""
        return x.unflatten(dim, (-1, self.group)).transpose(dim, dim + 1)  # type: ignore[no-untyped-call, no-any-return]

    def _reading(self, weight: Tensor, dim: int) -> Tensor:
        """Weights that read [latent, action], or the latent alone, along `dim`: the latent's entries permuted."""
        shape = list(weight.shape)
        shape[dim] = self.latent_dim + self.action_dim
        with torch.inference_mode(False):
            copy = torch.zeros(shape, dtype=self.dtype, device=self.device)
        latent, weight = self.latent_dim, weight.detach()
        there = copy.narrow(dim, 0, latent).unflatten(dim, (self.group, -1))  # type: ignore[no-untyped-call]
        self._copies.append((there, self.grouped(weight.narrow(dim, 0, latent), dim)))
        if weight.shape[dim] > latent:
            self._copies.append(
                (copy.narrow(dim, latent, self.action_dim), weight.narrow(dim, latent, self.action_dim))
            )
        return copy

    def _norm(self, weight: Tensor) -> Tensor:
        copy = self._copy(weight, torch.float32)
        self._negated.append(copy)
        return copy

    def _layers(self, net: nn.Sequential) -> list[PackedLayer]:
        """The Linears of a network that reads latents, each with the LayerNorm that follows it."""
        modules = list(net)
        layers: list[PackedLayer] = []
        for i, linear in enumerate(modules):
            if not isinstance(linear, nn.Linear):
                continue
            weight = self._copy(linear.weight, self.dtype) if layers else self._reading(linear.weight, 1)
            norm = modules[i + 1] if i + 1 < len(modules) else None
            norms = (self._norm(norm.weight), self._norm(norm.bias)) if isinstance(norm, nn.LayerNorm) else ()
            layers.append(PackedLayer(weight.t(), self._copy(linear.bias, self.dtype), *norms))
        return layers

    def _to_latent(self, linear: nn.Module, norm: nn.Module) -> PackedLayer:
        """The last layer of the dynamics, which makes latents; its norm is not negated, no Mish follows."""
        parts = []
        for original, dtype in (
            (linear.weight, self.dtype),
            (linear.bias, self.dtype),
            (norm.weight, torch.float32),
            (norm.bias, torch.float32),
        ):
            assert isinstance(original, Tensor)
            copy = self._new(original, dtype)
            self._copies.append((copy.unflatten(0, (self.group, -1)), self.grouped(original.detach(), 0)))  # type: ignore[no-untyped-call]
            parts.append(copy)
        return PackedLayer(parts[0].t(), *parts[1:])

    def _ensemble(self) -> list[PackedLayer]:
        q = self.model.q
        layers: list[PackedLayer] = []
        for i, (weight, bias) in enumerate(zip(q.weights, q.biases, strict=True)):
            norms: tuple[Tensor, ...] = ()
            if i < len(q.norm_weights):
                norms = (self._norm(q.norm_weights[i].squeeze(1)), self._norm(q.norm_biases[i].squeeze(1)))
            copy = self._copy(weight, self.dtype) if i else self._reading(weight, 1)
            layers.append(PackedLayer(copy, self._copy(bias.squeeze(1), self.dtype), *norms))
        return layers
