"""The building blocks and parts of the world model. Sizes and layer order follow the reference print-out.

Shapes: B any number of leading dimensions, L latent, A action, O observation, K bins, N heads of the ensemble.

Mish and the softmax over small groups have forms that a CPU computes faster: they give what torch's own functions
give, to float32 rounding; on other devices torch's own are used.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Generator, Tensor, nn
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


INIT_STD = 0.02


class SimNorm(nn.Module):
    """Softmax over groups of `group` neighbouring entries of the last axis (TD-MPC2, eq. 4)."""

    def __init__(self, group: int = 8) -> None:
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        """(..., L) to (..., L); each group of the result sums to 1."""
        return group_softmax(x, self.group)

    def extra_repr(self) -> str:
        return "" if self.group == 8 else f"group={self.group}"


class Mish(nn.Module):
    """x · tanh(softplus(x)), elementwise."""

    def forward(self, x: Tensor) -> Tensor:
        return mish(x)


def with_action(net: nn.Sequential, z: Tensor, action: Tensor) -> Tensor:
    """`net` of [z, action]; z (..., L) may have ones where action (..., A) has more.

    Such a z passes the first layer once: [z, a] W = z W_z + a W_a.
    """
    if z.shape[:-1] == action.shape[:-1]:
        return net(torch.cat([z, action], dim=-1))  # type: ignore[no-any-return]
    first, *rest = net
    weight = first.weight
    latent_dim = z.shape[-1]
    h = F.linear(z, weight[:, :latent_dim], first.bias) + F.linear(action, weight[:, latent_dim:])  # type: ignore
    for layer in rest:
        h = layer(h)
    return h


def hidden_layers(input_dim: int, hidden_dim: int, count: int) -> list[nn.Module]:
    """`count` blocks Linear → LayerNorm → Mish."""
    widths = [input_dim] + [hidden_dim] * count
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.LayerNorm(after), Mish()]
    return layers


class Encoder(nn.Module):
    """Observation to latent: (..., O) → (..., L). With `norm` a LayerNorm stands before the SimNorm."""

    def __init__(
        self, observation_dim: int, latent_dim: int, hidden_dim: int, layers: int, simnorm_dim: int, *, norm: bool
    ) -> None:
        super().__init__()
        blocks = hidden_layers(observation_dim, hidden_dim, layers)
        norms = [nn.LayerNorm(latent_dim)] if norm else []
        self.net = nn.Sequential(*blocks, nn.Linear(hidden_dim, latent_dim), *norms, SimNorm(simnorm_dim))

    def forward(self, observation: Tensor) -> Tensor:
        return self.net(observation)  # type: ignore[no-any-return]


class Dynamics(nn.Module):
    """Next latent from latent and action: (..., L), (..., A) → (..., L)."""

    def __init__(self, latent_dim: int, action_dim: int, hidden_dim: int, layers: int, simnorm_dim: int) -> None:
        super().__init__()
        blocks = hidden_layers(latent_dim + action_dim, hidden_dim, layers)
        self.net = nn.Sequential(*blocks, nn.Linear(hidden_dim, latent_dim), nn.LayerNorm(latent_dim))
        self.simnorm = SimNorm(simnorm_dim)

    def forward(self, z: Tensor, action: Tensor) -> Tensor:
        return self.simnorm(with_action(self.net, z, action))  # type: ignore[no-any-return]


class Reward(nn.Module):
    """Logits over reward bins: (..., L), (..., A) → (..., K)."""

    def __init__(self, latent_dim: int, action_dim: int, hidden_dim: int, layers: int, bins: int) -> None:
        super().__init__()
        blocks = hidden_layers(latent_dim + action_dim, hidden_dim, layers)
        self.net = nn.Sequential(*blocks, nn.Linear(hidden_dim, bins))

    def forward(self, z: Tensor, action: Tensor) -> Tensor:
        return with_action(self.net, z, action)


class Termination(nn.Module):
    """Logit of "the episode has ended here", from the latent alone: (..., L) → (...)."""

    def __init__(self, latent_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(latent_dim, hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, 1),
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.mlp(z).squeeze(-1)  # type: ignore[no-any-return]


class QFunction(nn.Module):
    """One head of the ensemble as a plain module: what `QEnsemble` stacks, and what `describe` prints."""

    def __init__(
        self, latent_dim: int, action_dim: int, hidden_dim: int, layers: int, bins: int, dropout: float
    ) -> None:
        super().__init__()
        blocks = hidden_layers(latent_dim + action_dim, hidden_dim, layers)
        blocks.insert(2, nn.Dropout(dropout))  # after the first LayerNorm
        self.net = nn.Sequential(*blocks, nn.Linear(hidden_dim, bins))

    def forward(self, z: Tensor, action: Tensor) -> Tensor:
        return self.net(torch.cat([z, action], dim=-1))  # type: ignore[no-any-return]


class QEnsemble(nn.Module):
    """N Q functions computed as one batched product per layer: (..., L), (..., A) → (N, ..., K).

    The parameters of layer i of all heads lie in one tensor: weight (N, in, out), bias (N, 1, out).
    What dropout takes out is handed in by the caller, so a call is a function of its arguments and the weights.
    """

    def __init__(self, functions: list[QFunction]) -> None:
        super().__init__()
        linears = [[m for m in f.net if isinstance(m, nn.Linear)] for f in functions]
        norms = [[m for m in f.net if isinstance(m, nn.LayerNorm)] for f in functions]
        self.heads = len(functions)
        self.dropout = next(m.p for m in functions[0].net if isinstance(m, nn.Dropout))
        self.eps = norms[0][0].eps
        self.weights = nn.ParameterList(
            [torch.stack([m.weight.detach().T for m in same]) for same in zip(*linears, strict=True)]
        )
        self.biases = nn.ParameterList(
            [torch.stack([m.bias.detach() for m in same]).unsqueeze(1) for same in zip(*linears, strict=True)]
        )
        self.norm_weights = nn.ParameterList(
            [torch.stack([m.weight.detach() for m in same]).unsqueeze(1) for same in zip(*norms, strict=True)]
        )
        self.norm_biases = nn.ParameterList(
            [torch.stack([m.bias.detach() for m in same]).unsqueeze(1) for same in zip(*norms, strict=True)]
        )

    def _layers(self, heads: Tensor | None, frozen: bool) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Weight, bias, norm weight and norm bias of each hidden layer, for the chosen heads."""
        hidden = len(self.norm_weights)
        for i in range(hidden):
            group = (self.weights[i], self.biases[i], self.norm_weights[i], self.norm_biases[i])
            w, b, g, c = (_chosen(p, heads, frozen) for p in group)
            yield w, b, g, c

    def forward(
        self,
        z: Tensor,
        action: Tensor,
        *,
        heads: Tensor | None = None,
        dropped: Tensor | None = None,
        frozen: bool = False,
    ) -> Tensor:
        """Logits (n, ..., K) of the chosen heads.

        Args:
            heads: indices (n,) of the heads wanted; all when None.
            dropped: what dropout takes out after the first LayerNorm, see `dropped_entries`; None for no dropout.
            frozen: block gradients into the heads (they still flow to z and action).
        """
        x = torch.cat([z, action], dim=-1)
        lead = x.shape[:-1]
        n = self.heads if heads is None else heads.shape[0]
        h = x.reshape(1, -1, x.shape[-1]).expand(n, -1, -1)  # (n, B, L + A)
        for i, (weight, bias, norm_weight, norm_bias) in enumerate(self._layers(heads, frozen)):
            h = torch.baddbmm(bias, h, weight)
            h = torch.addcmul(norm_bias, F.layer_norm(h, h.shape[-1:], eps=self.eps), norm_weight)
            if i == 0 and dropped is not None:
                h = taken_out(h, dropped) / (1 - self.dropout)
            h = mish(h)
        last_weight, last_bias = (_chosen(p[-1], heads, frozen) for p in (self.weights, self.biases))
        return torch.baddbmm(last_bias, h, last_weight).reshape(n, *lead, -1)


_SIGMAS = 8.0  # so many standard deviations more dropout positions than expected are drawn: enough for any batch


def dropped_entries(shape: tuple[int, ...], rate: float, generator: Generator) -> Tensor:
    """Which entries of a tensor dropout takes out, each by itself with probability `rate`.

    On a CPU their positions in the flattened tensor, ascending: the gaps between them are geometric, so that many
    random numbers suffice as there are positions. Elsewhere a mask: the number of positions would have to be known to
    the host.
    """
    device = generator.device
    if device.type != "cpu":
        return torch.rand(shape, generator=generator, device=device) < rate
    count = math.prod(shape)
    expected = count * rate
    gaps = torch.empty(int(expected + _SIGMAS * (expected**0.5 + 1)) + 1, dtype=torch.float64)
    positions = gaps.geometric_(rate, generator=generator).cumsum(0).long() - 1
    return positions[positions < count]


def taken_out(x: Tensor, dropped: Tensor) -> Tensor:
    """x with zeros where `dropped_entries` says."""
    if dropped.dtype == torch.bool:
        return x.masked_fill(dropped.view(x.shape), 0.0)
    return x.reshape(-1).index_fill(0, dropped, 0.0).view(x.shape)


def _chosen(parameter: Tensor, heads: Tensor | None, frozen: bool) -> Tensor:
    parameter = parameter.detach() if frozen else parameter
    return parameter if heads is None else parameter[heads]


def init_weights(module: nn.Module, generator: Generator) -> None:
    """Linear weights from a truncated normal (std 0.02), biases 0, LayerNorm weights 1 and biases 0.

    Acts on every Linear and LayerNorm inside `module`; call it on each ensemble member before stacking.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=INIT_STD, generator=generator)
            nn.init.zeros_(part.bias)
        elif isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)


def zero_last_layer(net: nn.Sequential) -> None:
    """Zero the last Linear's weights, so that the head predicts the same for everything at the start."""
    last = [m for m in net if isinstance(m, nn.Linear)][-1]
    nn.init.zeros_(last.weight)
