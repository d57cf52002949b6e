"""What the planner asks of a model, and the plain answer: the networks as they are, in float32, step by step.

`ModelRollouts` is the reading copy and what the tests compare every faster form with; `PackedRollouts` in
`tdmpc_lab.agent.packed` is what plans.

Shapes: E environments, N sequences per environment, P policy trajectories, H horizon, A action, L latent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from tdmpc_lab.agent.policy import drawn_action
from tdmpc_lab.agent.world_model import WorldModel


@dataclass(frozen=True)
class Rolled:
    """Action sequences followed through the model to their last latent."""

    value: Tensor  # (E, N) Σ γ^t (1 − done_t) r̂_t, float32
    alive: Tensor  # (E, N) 1 where the sequence is not done after its last step, else 0; float32
    last: Tensor  # (E, N, …) the last latents, in the form that the same rollouts' `terminal` takes


class Rollouts(Protocol):
    """A model as the planner sees it. All randomness comes in as standard normal draws, so a plan is a pure function.

    Implementations differ in speed and rounding only. They may keep buffers: what a call returned is valid until
    the next call of the same method.
    """

    action_dim: int
    q_heads: int

    def refresh(self) -> None:
        """Take the model's present weights, where copies are kept; `start` does it too."""

    def start(self, z: Tensor) -> object:
        """What can be computed once for the latents z (E, L) that a plan begins at; handed to the other methods."""

    def propose(self, start: object, noise: Tensor) -> tuple[Tensor, Rolled]:
        """Follow the policy prior, its draws made of `noise` (E, P, H, A): actions (E, P, H, A) and what they gave."""

    def roll(self, start: object, actions: Tensor) -> Rolled:
        """Follow action sequences (E, N, H, A)."""

    def terminal(self, last: Tensor, noise: Tensor, heads: Tensor) -> Tensor:
        """Mean of the online heads `heads` (2,) at the latents `last` (E, N, …) and the policy's draw: (E, N).

        Lowered by `pessimism` standard deviations (of the population) over all heads, where that is not 0.
        """


class ModelRollouts:
    """The networks of a `WorldModel`, called one after the other."""

    def __init__(self, model: WorldModel, *, horizon: int, discount: float, pessimism: float = 0.0) -> None:
        self.model = model
        self.pessimism = pessimism
        self.horizon = horizon
        self.discount = discount
        self.action_dim = model.action_dim
        self.q_heads = model.q.heads

    def refresh(self) -> None:
        """Nothing: no copies are kept."""

    def start(self, z: Tensor) -> Tensor:
        """z itself."""
        return z

    def propose(self, start: object, noise: Tensor) -> tuple[Tensor, Rolled]:
        """See `Rollouts`."""
        assert isinstance(start, Tensor)
        state = start.unsqueeze(1).expand(-1, noise.shape[1], -1)
        steps = []
        for t in range(self.horizon):
            action = self._policy(state, noise[:, :, t])
            steps.append(action)
            if t + 1 < self.horizon:
                state = self.model.dynamics(state, action)
        actions = torch.stack(steps, dim=2)
        return actions, self.roll(start, actions)

    def roll(self, start: object, actions: Tensor) -> Rolled:
        """A sequence is done once the termination head says so with probability above 0.5."""
        assert isinstance(start, Tensor)
        state = start.unsqueeze(1)  # (E, 1, L): one start for all samples, so its products are done once
        alive = torch.ones(actions.shape[:2], device=actions.device)
        value = torch.zeros_like(alive)
        for t in range(self.horizon):
            action = actions[:, :, t]
            value = value + self.discount**t * alive * self.model.predict_reward(state, action)
            state = self.model.dynamics(state, action)  # (E, N, L)
            if self.model.termination is not None:
                alive = alive * (self.model.termination(state) <= 0)  # logit 0 is probability 0.5
        return Rolled(value, alive, state)

    def terminal(self, last: Tensor, noise: Tensor, heads: Tensor) -> Tensor:
        """See `Rollouts`."""
        action = self._policy(last, noise)
        if self.pessimism == 0:
            return self.model.q_values(last, action, heads).mean(0)
        values = self.model.q_values(last, action, torch.arange(self.q_heads, device=heads.device))
        return values[heads].mean(0) - self.pessimism * values.std(0, correction=0)

    def _policy(self, state: Tensor, noise: Tensor) -> Tensor:
        mean, log_std = self.model.policy(state)
        return drawn_action(self.model.policy.head, mean, log_std, noise)
