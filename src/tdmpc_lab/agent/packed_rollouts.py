"""Rollouts with packed weights: what plans. See `tdmpc_lab.agent.packed` for what makes them fast.

Shapes: E environments, N sequences per environment, M = E · N rows, H horizon, A action, L latent, W hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor

from tdmpc_lab.agent.networks import mish_of_negative_
from tdmpc_lab.agent.packed import PackedLayer, PackedModel
from tdmpc_lab.agent.policy import drawn_action
from tdmpc_lab.agent.rollouts import Rolled
from tdmpc_lab.agent.world_model import WorldModel

CACHE_BYTES = 2 * 2**20  # of one float32 activation on a CPU: about what the second-level caches of two cores hold


@dataclass(frozen=True)
class Start:
    """What is computed once for the latents that a plan starts at."""

    dynamics: Tensor  # (E, 1, W) the first layer's product and bias, the action's part still missing
    reward: Tensor  # (E, 1, W)
    policy: Tensor  # (E, 1, 2A) the policy's two heads

    def of(self, first: int, last: int) -> Start:
        """For some of the environments."""
        return Start(self.dynamics[first:last], self.reward[first:last], self.policy[first:last])


class PackedRollouts:
    """`Rollouts` with packed weights: the same as `ModelRollouts` to the rounding of `dtype`."""

    def __init__(
        self,
        model: WorldModel,
        *,
        horizon: int,
        discount: float,
        dtype: torch.dtype = torch.float32,
        pessimism: float = 0.0,
    ) -> None:
        self.packed = PackedModel(model, dtype)
        self.horizon = horizon
        self.discount = discount
        self.pessimism = pessimism
        self.dtype = dtype
        self.action_dim = model.action_dim
        self.q_heads = model.q.heads
        self.latent_dim = model.latent_dim
        device = self.packed.device
        self._on_cpu = device.type == "cpu"
        widest = max(layer.weight.shape[-1] for layer in self.packed.dynamics)
        self._rows = max(1, CACHE_BYTES // (4 * widest)) if self._on_cpu else 2**30
        self._inputs: dict[tuple[str, int], Tensor] = {}
        with torch.inference_mode(False):
            self._factors = (discount ** torch.arange(horizon, dtype=torch.float32, device=device)).unsqueeze(1)

    def refresh(self) -> None:
        """Copy the weights if any has changed."""
        self.packed.refresh()

    def start(self, z: Tensor) -> Start:
        """The first layers at z (E, L), once for all sequences. Takes the model's present weights."""
        packed = self.packed
        packed.refresh()
        z = packed.grouped(z, 1).flatten(1).to(self.dtype)
        dynamics, reward, policy = (
            torch.addmm(first.bias, z, first.weight[: self.latent_dim])
            for first in (packed.dynamics[0], packed.reward[0], packed.policy[0])
        )
        policy = self._policy_heads(self._hidden(policy, packed.policy))
        return Start(dynamics.unsqueeze(1), reward.unsqueeze(1), policy.unsqueeze(1))

    def propose(self, start: object, noise: Tensor) -> tuple[Tensor, Rolled]:
        """See `Rollouts`."""
        assert isinstance(start, Start)
        envs, count = noise.shape[:2]
        x = self._latents_and_actions("propose", envs * count)
        heads = start.policy
        for t in range(self.horizon):
            if t > 0:
                heads = self._policy(x[t]).view(envs, count, -1)
            x[t, :, self.latent_dim :] = self._action(heads, noise[:, :, t]).flatten(0, 1)
            self._step(x, t, start)
        actions = x[:-1, :, self.latent_dim :].float().unflatten(1, (envs, count)).permute(1, 2, 0, 3)  # type: ignore[no-untyped-call]
        value, alive = self._values(x, start)
        # copied: the buffer is used again by the next call, this is needed to the plan's end
        return actions, Rolled(value.view(envs, count), alive.view(envs, count), x[-1].view(envs, count, -1).clone())

    def roll(self, start: object, actions: Tensor) -> Rolled:
        """See `Rollouts`. Some environments at a time, so that a block's activations stay in the cache."""
        assert isinstance(start, Start)
        envs, count = actions.shape[:2]
        block = max(1, self._rows // count)
        if block >= envs:
            return self._roll_block(start, actions)
        parts = []
        for first in range(0, envs, block):
            part = self._roll_block(start.of(first, first + block), actions[first : first + block])
            parts.append(Rolled(part.value, part.alive, part.last.clone()))
        return Rolled(*(torch.cat([getattr(p, name) for p in parts]) for name in ("value", "alive", "last")))

    def terminal(self, last: Tensor, noise: Tensor, heads: Tensor) -> Tensor:
        """See `Rollouts`. Writes the policy's action beside the latents in `last`."""
        chosen = heads.tolist() if self._on_cpu else list(heads.split(1))  # type: ignore[no-untyped-call]
        rows, noise = last.flatten(0, 1), noise.flatten(0, 1)
        values = []
        for x, eps in zip(rows.split(self._rows), noise.split(self._rows), strict=True):  # type: ignore[no-untyped-call]
            x[:, self.latent_dim :] = self._action(self._policy(x), eps)
            values.append(self._terminal_value(x, chosen))
        return torch.cat(values).view(last.shape[:2])

    def _terminal_value(self, x: Tensor, chosen: Sequence[int | Tensor]) -> Tensor:
        """At x (M, L + A), of the two heads chosen: (M,)."""
        if self.pessimism == 0:
            return 0.5 * (self._q(x, chosen[0]) + self._q(x, chosen[1]))
        every = torch.stack([self._q(x, head) for head in range(self.q_heads)])
        first, second = (every[head].view(-1) for head in chosen)
        return 0.5 * (first + second) - self.pessimism * every.std(0, correction=0)

    def _roll_block(self, start: Start, actions: Tensor) -> Rolled:
        envs, count = actions.shape[:2]
        x = self._latents_and_actions("roll", envs * count)
        x[:-1, :, self.latent_dim :] = actions.permute(2, 0, 1, 3).flatten(1, 2)
        for t in range(self.horizon):
            self._step(x, t, start)
        value, alive = self._values(x, start)
        return Rolled(value.view(envs, count), alive.view(envs, count), x[-1].view(envs, count, -1))

    def _latents_and_actions(self, purpose: str, rows: int) -> Tensor:
        """A buffer (H + 1, M, L + A). The latents of time 0 stand nowhere: their products are in `Start`."""
        key = purpose, rows
        if key not in self._inputs:
            shape = self.horizon + 1, rows, self.latent_dim + self.action_dim
            with torch.inference_mode(False):
                self._inputs[key] = torch.zeros(shape, dtype=self.dtype, device=self.packed.device)
        return self._inputs[key]

    def _step(self, x: Tensor, t: int, start: Start) -> None:
        """The latents of time t + 1 from latents and actions of time t."""
        layers = self.packed.dynamics
        if t == 0:
            h = self._first_at_start(start.dynamics, layers[0], x[0])
        else:
            h = torch.addmm(layers[0].bias, x[t], layers[0].weight)
        h = self._hidden(h, layers[:-1])
        last = layers[-1]
        logits = torch.addmm(last.bias, h, last.weight).float()
        logits = F.layer_norm(logits, logits.shape[-1:], last.norm_weight, last.norm_bias)
        latents = torch.softmax(logits.unflatten(1, (self.packed.group, -1)), dim=1).flatten(1)  # type: ignore[no-untyped-call]
        x[t + 1, :, : self.latent_dim] = latents

    def _values(self, x: Tensor, start: Start) -> tuple[Tensor, Tensor]:
        """Discounted rewards while alive, and who is alive at the end, each (M,)."""
        packed, rows = self.packed, x.shape[1]
        steps = max(1, self._rows // rows)  # taken at once
        rewards, logits = [], []
        for first in range(0, self.horizon, steps):
            last = min(first + steps, self.horizon)
            layer, parts = packed.reward[0], []
            if first == 0:
                parts.append(self._first_at_start(start.reward, layer, x[0]))
            if last > max(first, 1):
                parts.append(torch.addmm(layer.bias, x[max(first, 1) : last].flatten(0, 1), layer.weight))
            h = parts[0] if len(parts) == 1 else torch.cat(parts)
            rewards.append(self._decoded(self._hidden(h, packed.reward[:-1]), packed.reward[-1]).view(-1, rows))
            if packed.termination:
                logits.append(self._termination(x[first + 1 : last + 1].flatten(0, 1)).view(-1, rows))
        reward = torch.cat(rewards)  # (H, M)
        if not packed.termination:
            return (self._factors * reward).sum(0), torch.ones_like(reward[-1])
        alive = (torch.cat(logits) <= 0).float().cumprod(0)  # logit 0 is probability 0.5
        before = torch.cat([torch.ones_like(alive[:1]), alive[:-1]])
        return (self._factors * before * reward).sum(0), alive[-1]

    def _first_at_start(self, at_start: Tensor, layer: PackedLayer, x: Tensor) -> Tensor:
        """The first layer where the latent is the plan's own: only the action's part differs between sequences."""
        envs = at_start.shape[0]
        actions = x[:, self.latent_dim :].view(envs, -1, self.action_dim)  # (E, N, A)
        weight = layer.weight[self.latent_dim :].expand(envs, -1, -1)
        return torch.baddbmm(at_start, actions, weight).flatten(0, 1)

    def _hidden(self, h: Tensor, layers: list[PackedLayer]) -> Tensor:
        """The hidden layers, `h` being the first one's product with its bias."""
        for i, layer in enumerate(layers):
            if i > 0:
                h = torch.addmm(layer.bias, h, layer.weight)
            h = F.layer_norm(h.float(), h.shape[-1:], layer.norm_weight, layer.norm_bias)
            h = mish_of_negative_(h).to(self.dtype)
        return h

    def _policy(self, x: Tensor) -> Tensor:
        """The policy's two heads (M, 2A) at x (M, L + A); its weights for the action are zero."""
        layers = self.packed.policy
        return self._policy_heads(self._hidden(torch.addmm(layers[0].bias, x, layers[0].weight), layers))

    def _policy_heads(self, h: Tensor) -> Tensor:
        return torch.addmm(self.packed.policy_bias, h.float(), self.packed.policy_weight)

    def _action(self, heads: Tensor, eps: Tensor) -> Tensor:
        """The policy's action for the draw `eps` (…, A)."""
        policy = self.packed.model.policy
        mean, log_std = heads.split(self.action_dim, dim=-1)  # type: ignore[no-untyped-call]
        return drawn_action(policy.head, mean, policy.bounded_log_std(log_std), eps)

    def _termination(self, x: Tensor) -> Tensor:
        """Logits (M,)."""
        h, layers = x, self.packed.termination
        for layer in layers[:-1]:
            h = torch.addmm(layer.bias, h, layer.weight).relu_()
        return torch.addmm(layers[-1].bias.float(), h.float(), layers[-1].weight.float()).squeeze(1)

    def _q(self, x: Tensor, head: int | Tensor) -> Tensor:
        """One head's value (M,)."""
        layers = [layer.head(head) for layer in self.packed.q]
        h = self._hidden(torch.addmm(layers[0].bias, x, layers[0].weight), layers[:-1])
        return self._decoded(h, layers[-1])

    def _decoded(self, h: Tensor, layer: PackedLayer) -> Tensor:
        logits = torch.addmm(layer.bias, h, layer.weight).float()
        return self.packed.model.regression.decode(logits)
