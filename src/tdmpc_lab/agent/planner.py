"""MPPI planning in latent space, batched over environments (TD-MPC2, section 3.3; arXiv 2310.16828).

Shapes: E environments, S samples, P policy trajectories among them, D = S − P drawn ones, K elites, H horizon,
A action, L latent, I iterations.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Generator, Tensor

from tdmpc_lab.agent.rollouts import Rolled, Rollouts
from tdmpc_lab.agent.static_call import StaticCall
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
    nan_values: Tensor  # (E,) how many value estimates were NaN (they count as 0 in the search)


@dataclass(frozen=True)
class Draws:
    """Every random number of one plan."""

    proposals: Tensor  # (E, P, H, A) standard normal, of the policy prior's own sequences
    candidates: Tensor  # (I, E, D, H, A) standard normal
    terminal: Tensor  # (I, E, S, A) standard normal, of the policy's action at the last latent
    heads: Tensor  # (I, 2) two different heads of the ensemble
    clocks: Tensor  # (E, K) exponential, for the choice of one elite
    exploration: Tensor  # (E, A) standard normal

    def extended(self, more: int) -> tuple[Tensor, ...]:
        """All of them for `more` further environments, whose plans nobody wants."""
        first, second, last = (self.proposals,), (self.candidates, self.terminal), (self.clocks, self.exploration)
        return (
            *(_extended(x, 0, more) for x in first),
            *(_extended(x, 1, more) for x in second),
            self.heads,
            *(_extended(x, 0, more) for x in last),
        )


def _extended(x: Tensor, dim: int, more: int) -> Tensor:
    """x with its first entry in `dim` repeated `more` times behind the others."""
    return x if more == 0 else torch.cat([x, x.narrow(dim, 0, 1).repeat_interleave(more, dim)], dim)


class MPPI:
    """Model predictive path integral control with a learned model and a policy prior.

    The warm start belongs to the caller. Nothing inside waits for the host, so a plan can run asynchronously on a GPU,
    and as one CUDA graph.
    """

    def __init__(self, config: PlannerConfig, *, horizon: int, discount: float) -> None:
        self.config = config
        self.horizon = horizon
        self.discount = discount
        self._calls: dict[tuple[int, int, bool], StaticCall] = {}  # by rollouts, size, explore

    @torch.no_grad()
    def plan(
        self,
        rollouts: Rollouts,
        z: Tensor,
        previous_mean: Tensor,
        *,
        explore: bool,
        generator: Generator,
        captured: bool = False,
    ) -> Plan:
        """Plan from latents z (E, L), warm-started with the last plan's mean (E, H, A), zeros at an episode's start.

        With `explore` the first action gets the final distribution's noise; without, it is the drawn elite's own.
        With `captured` a plan on a GPU is one CUDA graph, one for each power of two of environments.
        """
        draws = self.draw(z.shape[0], rollouts.action_dim, rollouts.q_heads, generator)
        if not captured:
            return self.search(rollouts, z, previous_mean, draws, explore=explore)
        rollouts.refresh()  # outside the graph, which reads the weights where they lie
        envs = z.shape[0]
        size = 1 << (envs - 1).bit_length()  # few graphs, whatever numbers of environments are asked for
        rest = size - envs
        inputs = (_extended(z, 0, rest), _extended(previous_mean, 0, rest), *draws.extended(rest))
        key = id(rollouts), size, explore  # the call keeps the rollouts alive, so no other gets their id
        if key not in self._calls:

            def call(z: Tensor, mean: Tensor, *drawn: Tensor) -> tuple[Tensor, ...]:
                plan = self.search(rollouts, z, mean, Draws(*drawn), explore=explore)
                return tuple(getattr(plan, f.name) for f in fields(plan))

            self._calls[key] = StaticCall(call, inputs)
        return Plan(*(out[:envs] for out in self._calls[key](*inputs)))

    def draw(self, envs: int, action_dim: int, q_heads: int, generator: Generator) -> Draws:
        """The random numbers of a plan for `envs` environments."""
        config, device = self.config, generator.device
        iterations = planner_iterations(config, action_dim)
        count = config.samples - config.policy_trajectories

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, device=device)

        return Draws(
            proposals=normal(envs, config.policy_trajectories, self.horizon, action_dim),
            candidates=normal(iterations, envs, count, self.horizon, action_dim),
            terminal=normal(iterations, envs, config.samples, action_dim),
            heads=torch.rand(iterations, q_heads, generator=generator, device=device).topk(2).indices,
            clocks=torch.empty(envs, config.elites, device=device).exponential_(generator=generator),
            exploration=normal(envs, action_dim),
        )

    @torch.no_grad()
    def search(self, rollouts: Rollouts, z: Tensor, previous_mean: Tensor, draws: Draws, *, explore: bool) -> Plan:
        """`plan` with its random numbers given: the same arguments give the same plan."""
        config = self.config
        start = rollouts.start(z)
        proposals, proposed = self._propose(rollouts, start, draws.proposals)  # (E, P, H, A)
        mean = torch.cat([previous_mean[:, 1:], torch.zeros_like(previous_mean[:, :1])], dim=1)
        std = torch.full_like(mean, config.std_max)
        nan_values = torch.zeros(z.shape[0], dtype=torch.long, device=z.device)
        for noise, terminal_noise, heads in zip(draws.candidates, draws.terminal, draws.heads, strict=True):
            drawn = (mean.unsqueeze(1) + std.unsqueeze(1) * noise).clamp(-1, 1)
            rolled = _joined(rollouts.roll(start, drawn), proposed)
            value = self.sequence_value(rollouts, rolled, terminal_noise, heads)  # (E, S)
            nan_values += value.isnan().sum(1)
            value = value.nan_to_num(nan=0.0)
            elite_value, index = value.topk(config.elites, dim=1)  # (E, K)
            actions = drawn if proposals is None else torch.cat([drawn, proposals], dim=1)
            elites = actions.gather(1, index[:, :, None, None].expand(-1, -1, *actions.shape[2:]))  # (E, K, H, A)
            weights = torch.softmax(config.temperature * (elite_value - elite_value[:, :1]), dim=1)
            mean, std = self._refit(elites, weights)
        action = _chosen(elites, weights, draws.clocks)[:, 0]
        if explore:
            action = action + std[:, 0] * draws.exploration
        return Plan(action.clamp(-1, 1), mean, std, elite_value[:, 0], nan_values)

    def _propose(self, rollouts: Rollouts, start: object, noise: Tensor) -> tuple[Tensor | None, Rolled | None]:
        """The policy prior's sequences with their value up to the last latent: the same in every iteration."""
        return (None, None) if self.config.policy_trajectories == 0 else rollouts.propose(start, noise)

    @torch.no_grad()
    def sequence_value(self, rollouts: Rollouts, rolled: Rolled, noise: Tensor, heads: Tensor) -> Tensor:
        """Estimated return (E, N) of sequences of actions that were rolled.

        Σ γ^t (1 − done_t) r̂_t + γ^H (1 − done_H) · mean of the online heads `heads` (2,) at (z_H, a ~ policy(z_H)),
        that draw made of the standard normal `noise` (E, N, A).
        """
        terminal = rollouts.terminal(rolled.last, noise, heads)
        return rolled.value + self.discount**self.horizon * rolled.alive * terminal

    def _refit(self, elites: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted mean and clamped standard deviation (E, H, A) of elites (E, K, H, A)."""
        w = weights[:, :, None, None]
        mean = (w * elites).sum(1)
        variance = (w * (elites - mean.unsqueeze(1)).square()).sum(1)
        return mean, variance.sqrt().clamp(self.config.std_min, self.config.std_max)


def _joined(drawn: Rolled, proposed: Rolled | None) -> Rolled:
    """Both, the drawn sequences first."""
    if proposed is None:
        return drawn
    return Rolled(
        torch.cat([drawn.value, proposed.value], dim=1),
        torch.cat([drawn.alive, proposed.alive], dim=1),
        torch.cat([drawn.last, proposed.last], dim=1),
    )


def _chosen(elites: Tensor, weights: Tensor, clocks: Tensor) -> Tensor:
    """One of the elites (E, K, H, A) per environment, with probability ∝ weights (E, K): (E, H, A).

    The largest of w/Exp(1) is a draw by weight; unlike `torch.multinomial` it needs no check on the host.
    """
    index = (weights / clocks).argmax(1)
    return elites[torch.arange(elites.shape[0], device=elites.device), index]
