"""MPPI planning in latent space, batched over environments (TD-MPC2, section 3.3; arXiv 2310.16828).

Shapes: E environments, S samples, P policy trajectories among them, K elites, H horizon, A action, L latent.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from tdmpc_lab.agent.world_model import WorldModel
from tdmpc_lab.config.schema import PlannerConfig

WIDE_ACTION = 20  # from this many action dimensions on the search gets more iterations
EXTRA_ITERATIONS = 2


def planner_iterations(config: PlannerConfig, action_dim: int) -> int:
    """Iterations in force: wide actions get two more."""
    return config.iterations + (EXTRA_ITERATIONS if action_dim >= WIDE_ACTION else 0)


@dataclass(frozen=True)
class Plan:
    """What one planning call found."""

    action: Tensor  # (E, A) in [-1, 1], to be applied now
    mean: Tensor  # (E, H, A) mean of the final distribution; the next call's warm start
    std: Tensor  # (E, H, A) its standard deviation
    value: Tensor  # (E,) estimated return of the best sequence
    nan_values: Tensor  # () how many value estimates were NaN (they count as 0 in the search)


class MPPI:
    """Model predictive path integral control with a learned model and a policy prior.

    Holds settings only; the warm start belongs to the caller. Nothing inside waits for the host, so a plan can
    run asynchronously on a GPU.
    """

    def __init__(self, config: PlannerConfig, *, horizon: int, discount: float) -> None:
        self.config = config
        self.horizon = horizon
        self.discount = discount

    @torch.no_grad()
    def plan(self, model: WorldModel, z: Tensor, previous_mean: Tensor, *, explore: bool, generator: Generator) -> Plan:
        """Plan from latents z (E, L), warm-started with the last plan's mean (E, H, A), zeros at an episode's start.

        With `explore` the first action gets the final distribution's noise; without, it is the drawn elite's own.
        """
        config = self.config
        proposals = self._policy_proposals(model, z, generator)  # (E, P, H, A)
        mean = torch.cat([previous_mean[:, 1:], torch.zeros_like(previous_mean[:, :1])], dim=1)
        std = torch.full_like(mean, config.std_max)
        nan_values = torch.zeros((), dtype=torch.long, device=z.device)
        for _ in range(planner_iterations(config, mean.shape[-1])):
            actions = self._candidates(mean, std, proposals, generator)  # (E, S, H, A)
            value = self.sequence_value(model, z, actions, generator)  # (E, S)
            nan_values += value.isnan().sum()
            value = value.nan_to_num(nan=0.0)
            elite_value, index = value.topk(config.elites, dim=1)  # (E, K)
            elites = actions.gather(1, index[:, :, None, None].expand(-1, -1, *actions.shape[2:]))  # (E, K, H, A)
            weights = torch.softmax(config.temperature * (elite_value - elite_value[:, :1]), dim=1)
            mean, std = self._refit(elites, weights)
        action = _draw(elites, weights, generator)[:, 0]
        if explore:
            noise = torch.randn(action.shape, generator=generator, device=action.device)
            action = action + std[:, 0] * noise
        return Plan(action.clamp(-1, 1), mean, std, elite_value[:, 0], nan_values)

    def _policy_proposals(self, model: WorldModel, z: Tensor, generator: Generator) -> Tensor:
        """Roll the policy prior P times from each z (E, L) through the model: (E, P, H, A)."""
        count = self.config.policy_trajectories
        if count == 0:
            return torch.zeros(z.shape[0], 0, self.horizon, model.action_dim, device=z.device)
        state = z.repeat_interleave(count, dim=0)  # (E·P, L)
        steps = []
        for t in range(self.horizon):
            action = model.policy.sample(state, generator).action
            steps.append(action)
            if t + 1 < self.horizon:
                state = model.dynamics(state, action)
        return torch.stack(steps, dim=1).view(z.shape[0], count, self.horizon, -1)

    def _candidates(self, mean: Tensor, std: Tensor, proposals: Tensor, generator: Generator) -> Tensor:
        """Gaussian sequences clamped to [−1, 1], then the policy's own: (E, S, H, A)."""
        count = self.config.samples - proposals.shape[1]
        shape = (mean.shape[0], count, *mean.shape[1:])
        noise = torch.randn(shape, generator=generator, device=mean.device)
        drawn = (mean.unsqueeze(1) + std.unsqueeze(1) * noise).clamp(-1, 1)
        return torch.cat([drawn, proposals], dim=1)

    @torch.no_grad()
    def sequence_value(self, model: WorldModel, z: Tensor, actions: Tensor, generator: Generator) -> Tensor:
        """Estimated return of action sequences (E, S, H, A) from z (E, L): (E, S).

        Σ γ^t (1 − done_t) r̂_t + γ^H (1 − done_H) · mean of two random online heads at (z_H, a ~ policy(z_H));
        a sequence is done once the termination head says so with probability above 0.5.
        """
        state = z.unsqueeze(1)  # (E, 1, L): one start for all samples, so its products are done once
        alive = torch.ones(actions.shape[:2], device=z.device)  # (E, S)
        value = torch.zeros_like(alive)
        for t in range(self.horizon):
            action = actions[:, :, t]
            value += self.discount**t * alive * model.predict_reward(state, action)
            state = model.dynamics(state, action)  # (E, S, L)
            alive = alive * (model.termination(state) <= 0)  # logit 0 is probability 0.5
        action = model.policy.sample(state, generator).action
        terminal = model.q_values(state, action, model.two_heads(generator)).mean(0)
        value += self.discount**self.horizon * alive * terminal
        return value

    def _refit(self, elites: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted mean and clamped standard deviation (E, H, A) of elites (E, K, H, A)."""
        w = weights[:, :, None, None]
        mean = (w * elites).sum(1)
        variance = (w * (elites - mean.unsqueeze(1)).square()).sum(1)
        return mean, variance.sqrt().clamp(self.config.std_min, self.config.std_max)


def _draw(elites: Tensor, weights: Tensor, generator: Generator) -> Tensor:
    """One of the elites (E, K, H, A) per environment, with probability ∝ weights (E, K): (E, H, A).

    The largest of w/Exp(1) is a draw by weight; unlike `torch.multinomial` it needs no check on the host.
    """
    clocks = torch.empty_like(weights).exponential_(generator=generator)
    index = (weights / clocks).argmax(1)
    return elites[torch.arange(elites.shape[0], device=elites.device), index]
