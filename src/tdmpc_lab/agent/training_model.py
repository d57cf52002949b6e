"""A world model's networks for the update: the same parameters, computed with the blocks of `tdmpc_lab.agent.blocks`.

`TrainingModel` has the names that the losses call on a `WorldModel`, so either can be trained with; the tests hold
one against the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn

from tdmpc_lab.agent.blocks import Casts, block, ensemble_block, ensemble_linear, linear
from tdmpc_lab.agent.clipped_step import ClippedStep
from tdmpc_lab.agent.networks import QEnsemble, group_softmax
from tdmpc_lab.agent.regression import DiscreteRegression
from tdmpc_lab.agent.world_model import WorldModel


class TrainingModel:
    """The networks of `model` with products in `dtype`; what comes out of each is float32."""

    def __init__(self, model: WorldModel, dtype: torch.dtype = torch.float32) -> None:
        self.model = model
        self.regression: DiscreteRegression = model.regression
        self._casts = Casts(dtype)
        self._group = model.dynamics.simnorm.group

    def encoder(self, observation: Tensor) -> Tensor:
        """(..., O) to (..., L)."""
        return self._latent(list(self.model.encoder.net)[:-1], observation)

    def dynamics(self, z: Tensor, action: Tensor) -> Tensor:
        """(..., L), (..., A) to (..., L)."""
        return self._latent(list(self.model.dynamics.net), self._together(z, action))

    def unroll(self, z: Tensor, actions: Tensor) -> Tensor:
        """z (B, L) and actions (H, B, A) to the latents after each of them: (H, B, L)."""
        latents = []
        for action in actions:
            z = self.dynamics(z, action)
            latents.append(z)
        return torch.stack(latents)

    def reward(self, z: Tensor, action: Tensor) -> Tensor:
        """Logits (..., K)."""
        return self._through(list(self.model.reward.net), self._together(z, action)).float()

    def termination(self, z: Tensor) -> Tensor:
        """Logits (...), of a model that has the head. The last layer is in float32: an end is rare, and its small
        probability lies in a large logit."""
        assert self.model.termination is not None
        *hidden, last = self.model.termination.mlp
        return last(self._through(hidden, z).float()).squeeze(-1)  # type: ignore[no-any-return]

    def policy(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Raw mean and log standard deviation, (..., A) each; both heads in float32."""
        policy = self.model.policy
        h = self._through(list(policy.net), z).float()
        return policy.mean_head(h), policy.bounded_log_std(policy.log_std_head(h))

    def q(
        self,
        z: Tensor,
        action: Tensor,
        *,
        heads: Tensor | None = None,
        dropped: Tensor | None = None,
        frozen: bool = False,
        target: bool = False,
    ) -> Tensor:
        """Logits (n, ..., K), as `QEnsemble`'s; those of the target ensemble with `target`."""
        ensemble = self.model.q_target if target else self.model.q
        x = self._together(z, action)
        lead = x.shape[:-1]
        h = x.reshape(-1, x.shape[-1])
        for i in range(len(ensemble.norm_weights)):
            layer = (ensemble.weights[i], ensemble.biases[i], ensemble.norm_weights[i], ensemble.norm_biases[i])
            weight, bias, norm_weight, norm_bias = (_chosen(p, heads, frozen) for p in layer)
            low = self._low(ensemble, i, heads)
            if i == 0 and dropped is not None:
                h = ensemble_block(h, weight, bias, norm_weight, norm_bias, low, dropped, 1 - ensemble.dropout)
            else:
                h = ensemble_block(h, weight, bias, norm_weight, norm_bias, low)
        weight, bias = (_chosen(p[-1], heads, frozen) for p in (ensemble.weights, ensemble.biases))
        logits = ensemble_linear(h, weight, bias, self._low(ensemble, -1, heads))
        return logits.float().view(logits.shape[0], *lead, -1)

    def q_values(
        self,
        z: Tensor,
        action: Tensor,
        heads: Tensor,
        *,
        target: bool = False,
        dropped: Tensor | None = None,
        frozen: bool = False,
    ) -> Tensor:
        """Decoded values (n, ...) of the chosen heads."""
        logits = self.q(z, action, heads=heads, dropped=dropped, frozen=frozen, target=target)
        return self.regression.decode(logits)

    def forget_copies(self) -> None:
        """Make copies of weights in the products' type anew, whether or not the weights were written to."""
        self._casts.forget()

    def stepper(
        self, optimizer: torch.optim.Adam, parts: Mapping[str, Sequence[nn.Parameter]], max_norm: float
    ) -> ClippedStep:
        """What takes the optimizer's steps; see `ClippedStep`."""
        return ClippedStep(optimizer, parts, max_norm)

    def _latent(self, net: list[nn.Module], x: Tensor) -> Tensor:
        """A network that ends in a Linear, or in one with a LayerNorm, followed by SimNorm."""
        logits = self._through(net, x).float()
        norm = net[-1]
        if isinstance(norm, nn.LayerNorm):
            logits = F.layer_norm(logits, logits.shape[-1:], norm.weight, norm.bias, norm.eps)
        return group_softmax(logits, self._group)

    def _together(self, z: Tensor, action: Tensor) -> Tensor:
        dtype = self._casts.dtype
        return torch.cat([z.to(dtype), action.to(dtype)], dim=-1)

    def _low(self, ensemble: QEnsemble, layer: int, heads: Tensor | None) -> tuple[Tensor, Tensor]:
        weight, bias = (self._casts(p[layer]) for p in (ensemble.weights, ensemble.biases))
        return (weight, bias) if heads is None else (weight[heads], bias[heads])

    def _through(self, modules: list[nn.Module], x: Tensor) -> Tensor:
        """All blocks and Linears of a network, each Linear that a ReLU follows with it; SimNorm and a norm at the
        end are left to the caller."""
        for i, module in enumerate(modules):
            if not isinstance(module, nn.Linear):
                continue
            after = modules[i + 1] if i + 1 < len(modules) else None
            if isinstance(after, nn.LayerNorm) and i + 2 < len(modules):
                x = block(x, module.weight, module.bias, after.weight, after.bias, self._casts)
            else:
                x = linear(x, module.weight, module.bias, self._casts)
                x = torch.relu(x) if isinstance(after, nn.ReLU) else x
        return x


def _chosen(parameter: Tensor, heads: Tensor | None, frozen: bool) -> Tensor:
    parameter = parameter.detach() if frozen else parameter
    return parameter if heads is None else parameter[heads]
