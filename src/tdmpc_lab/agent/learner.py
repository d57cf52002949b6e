"""One update of the world model, the Q ensemble, the policy prior and the target (TD-MPC2, eq. 3 and 4).

Shapes: H horizon, W = H + `agent.td_steps` − 1 steps of a batch, B batch, O observation, A action, L latent, N heads,
K bins; time comes first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Generator, Tensor

from tdmpc_lab.agent.clipped_step import ClippedStep
from tdmpc_lab.agent.networks import dropped_entries
from tdmpc_lab.agent.policy import HALF_LOG_2PI, PolicySample, distribution
from tdmpc_lab.agent.replay import Batch
from tdmpc_lab.agent.scale import RunningScale
from tdmpc_lab.agent.training_model import TrainingModel
from tdmpc_lab.agent.world_model import WorldModel
from tdmpc_lab.config.schema import AgentConfig

POLICY_ADAM_EPS = 1e-5
PLAN_STD_MIN = 0.05  # of the planner's distribution as a prior, and the scale from which on it counts: TD-M(PC)²
PRIOR_FROM_SCALE = 2.0
PARTS = {"model": ("encoder", "dynamics", "reward", "termination", "q"), "policy": ("policy",)}
"""What each of the two optimizers trains."""


@dataclass(frozen=True)
class UpdateDraws:
    """Every random number of one update, in the order in which they are drawn. W = H + `td_steps` − 1."""

    target: Tensor  # (W, B, A) standard normal, of the policy's actions in the targets
    target_heads: Tensor  # (2,) two different heads of the target ensemble
    dropped: Tensor | None  # of (N, H · B, hidden), see `dropped_entries`; None without dropout
    policy: Tensor  # (H + 1, B, A) standard normal
    policy_heads: Tensor  # (2,)
    policy_dropped: Tensor | None  # of (2, (H + 1) · B, hidden)
    mirrored: Tensor | None  # (B,) bool; None where batches are not mirrored


@dataclass(frozen=True)
class Mirror:
    """A symmetry of the task: the same with these entries of observation and action negated."""

    observation: Tensor  # (O,) of 1 and −1
    action: Tensor  # (A,)

    def of(self, batch: Batch, mirrored: Tensor) -> Batch:
        """The batch with the sub-sequences `mirrored` (B,) mirrored; rewards and ends stay."""
        observation, action = (
            torch.where(mirrored.unsqueeze(1), signs, torch.ones_like(signs))  # (B, O), (B, A)
            for signs in (self.observation, self.action)
        )
        return replace(
            batch,
            observations=batch.observations * observation,
            actions=batch.actions * action,
            plan_mean=None if batch.plan_mean is None else batch.plan_mean * action,
        )


class Learner:
    """Losses, optimizers and running scale for one world model.

    `update` takes one batch and returns its losses as scalars on the device; it never waits for the device. The losses
    are functions of the weights, the running scale and their arguments.

    Args:
        mirror: the symmetry by which each sub-sequence of a batch is mirrored with probability ½; None for none.
    """

    def __init__(
        self,
        model: WorldModel,
        config: AgentConfig,
        *,
        discount: float,
        generator: Generator,
        mirror: Mirror | None = None,
    ) -> None:
        self.model = model
        self.nets = TrainingModel(model)
        self.config = config
        self.discount = discount
        self.generator = generator
        self.mirror = mirror
        device = model.regression.centres.device
        self.scale = RunningScale(config.scale_tau).to(device)
        encoder = list(model.encoder.parameters())
        rest = model.model_parameters()[len(encoder) :]
        groups: list[dict[str, Any]] = [
            {"params": encoder, "lr": config.lr * config.encoder_lr_scale},
            {"params": rest},
        ]
        self.model_optimizer = torch.optim.Adam(groups, lr=config.lr, fused=True)
        self.policy_optimizer = torch.optim.Adam(
            model.policy.parameters(), lr=config.lr, eps=POLICY_ADAM_EPS, fused=True
        )

    @property
    def nets(self) -> TrainingModel:
        """What computes the networks, the losses and the steps; replace it for another type or other kernels."""
        return self._nets

    @nets.setter
    def nets(self, nets: TrainingModel) -> None:
        self._nets = nets
        self._steppers: dict[str, ClippedStep] = {}  # made at the first step

    def draw(self, batch: Batch) -> UpdateDraws:
        """The random numbers of an update from this batch."""
        model, generator = self.model, self.generator
        window, size, action_dim = batch.actions.shape
        horizon = window - self.config.td_steps + 1

        def normal(steps: int) -> Tensor:
            return torch.randn(steps, size, action_dim, generator=generator, device=generator.device)

        def dropped(heads: int, steps: int) -> Tensor | None:
            rate = model.q.dropout
            shape = (heads, steps * size, model.q.weights[0].shape[2])
            return dropped_entries(shape, rate, generator) if rate > 0 else None

        return UpdateDraws(  # evaluated from top to bottom: the order belongs to what a seed means
            target=normal(window),
            target_heads=model.two_heads(generator),
            dropped=dropped(model.q.heads, horizon),
            policy=normal(horizon + 1),
            policy_heads=model.two_heads(generator),
            policy_dropped=dropped(2, horizon + 1),
            mirrored=None
            if self.mirror is None
            else torch.rand(size, generator=generator, device=generator.device) < 0.5,
        )

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """Train on one batch: model and Q, then the policy on the detached latents, then the target."""
        return self.learn(batch, self.draw(batch))

    def learn(self, batch: Batch, draws: UpdateDraws) -> dict[str, Tensor]:
        """`update` with its random numbers given."""
        if self.mirror is not None and draws.mirrored is not None:
            batch = self.mirror.of(batch, draws.mirrored)
        with torch.no_grad():
            next_z = self.nets.encoder(batch.observations[1:])  # (W, B, L)
            target = self.td_target(next_z, batch, draws)  # (H, B)
        latents, losses = self.model_losses(batch, next_z, target, draws)
        losses |= self._step(losses["loss/total"], "model")
        loss, metrics = self.policy_loss(latents.detach(), batch, draws)
        self.scale.value.copy_(metrics["policy/scale"])
        losses |= metrics | self._step(loss, "policy")
        self.model.update_target(self.config.tau)
        losses["td_target"] = _average(target, batch.mask(len(target)))
        return {name: value.detach() for name, value in losses.items()}

    @torch.no_grad()
    def td_target(self, next_z: Tensor, batch: Batch, draws: UpdateDraws) -> Tensor:
        """Σ γ^k r_{t+k} over n = `td_steps` steps, then γ^n V: (H, B).

        V is the minimum of two random target heads at (next_z, a ~ policy). The sum stops where the task ended, and is
        bootstrapped earlier where the episode was cut off (time limit): a truncated step is not terminated.

        Args:
            next_z: encoded next observations (W, B, L).
        """
        action = self._sample(next_z, draws.target).action
        value = self.nets.q_values(next_z, action, draws.target_heads, target=True).amin(0)  # (W, B)
        keeps = self.discount * (1 - batch.terminated)
        target = batch.rewards + keeps * value
        for _ in range(self.config.td_steps - 1):
            steps = len(target) - 1  # those that have a next one
            after = target[1:]
            if batch.valid is not None:
                after = torch.where(batch.valid[1 : steps + 1] > 0, after, value[:steps])
            target = batch.rewards[:steps] + keeps[:steps] * after
        return target

    def model_losses(
        self, batch: Batch, next_z: Tensor, target: Tensor, draws: UpdateDraws
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Roll the model through the batch; latents (H + 1, B, L) and the weighted losses.

        Steps behind an episode's end count as 0 in every loss, and the number of steps they are averaged over stays.

        Args:
            next_z: encoded next observations (W, B, L), without gradient: the consistency target.
            target: TD targets (H, B), without gradient.
        """
        model, config = self.nets, self.config
        horizon = target.shape[0]
        actions, rewards, mask = batch.actions[:horizon], batch.rewards[:horizon], batch.mask(horizon)
        first = model.encoder(batch.observations[0])
        after = model.unroll(first, actions)
        latents = torch.cat([first.unsqueeze(0), after])  # (H + 1, B, L)
        before = latents[:-1]

        rho = config.rho ** torch.arange(horizon, device=first.device)  # (H,)
        consistency = _masked((after - next_z[:horizon]).square(), mask, -1).mean((1, 2))
        reward = _masked(model.regression.loss(model.reward(before, actions), rewards), mask).mean(1)
        q_logits = model.q(before, actions, dropped=draws.dropped)  # (N, H, B, K)
        value = _masked(model.regression.loss(q_logits, target), mask).mean((0, 2))
        losses = {
            "loss/consistency": (rho * consistency).sum() / horizon,
            "loss/reward": (rho * reward).sum() / horizon,
            "loss/value": (rho * value).sum() / horizon,
        }
        losses["loss/total"] = (
            config.consistency_weight * losses["loss/consistency"]
            + config.reward_weight * losses["loss/reward"]
            + config.value_weight * losses["loss/value"]
        )
        if config.termination:
            # torch's own mean over the mask as a weight: with none it is the plain mean, to the last bit
            losses["loss/termination"] = F.binary_cross_entropy_with_logits(
                model.termination(after), batch.terminated[:horizon], weight=mask
            )
            losses["loss/total"] = losses["loss/total"] + config.termination_weight * losses["loss/termination"]
        return latents, losses

    def policy_loss(self, latents: Tensor, batch: Batch, draws: UpdateDraws) -> tuple[Tensor, dict[str, Tensor]]:
        """ρ-weighted −(Q/S + entropy + prior) over latents (H + 1, B, L) without gradient.

        S is the running scale as it will be after this update: `policy/scale` of the metrics. Latents behind an
        episode's end count as 0.
        """
        config, steps = self.config, latents.shape[0]
        mask = batch.mask_of_states(steps)
        sample = self._sample(latents, draws.policy)
        q = self.nets.q_values(
            latents, sample.action, draws.policy_heads, dropped=draws.policy_dropped, frozen=True
        ).mean(0)  # (H + 1, B)
        scale = self.scale.moved(q[0].detach())
        rho = config.rho ** torch.arange(steps, device=q.device)
        objective = q / scale + config.entropy_weight * sample.entropy
        metrics = {}
        if config.policy_prior != "value":
            prior = self._prior(sample.action[:-1], batch, scale)  # (H, B)
            objective = objective + torch.cat([prior, torch.zeros_like(prior[:1])])
            metrics["policy/prior"] = _average(prior, batch.mask(steps - 1))
        loss = -(rho * _masked(objective, mask).mean(1)).mean()
        return loss, {
            "loss/policy": loss,
            "policy/q": _average(q, mask),
            "policy/scale": scale,
            "policy/log_prob": _average(sample.log_prob, mask),
            "policy/log_std": _average(sample.log_std, None if mask is None else mask.unsqueeze(-1)),
            **metrics,
        }

    def _prior(self, action: Tensor, batch: Batch, scale: Tensor) -> Tensor:
        """What draws the policy's actions (H, B, A) to those that were planned, 0 at random steps: (H, B).

        `cloned` (Newt, the official code's successor): − mean over entries of (a − a_t)². `planner` (TD-M(PC)², arXiv
        2502.03550): β log N(a; μ_t, max(σ_t, 0.05)) / S where S > 2, with β = A² / 61.
        """
        horizon, action_dim = action.shape[0], action.shape[-1]
        assert batch.random is not None
        planned = _masked(1 - batch.random[:horizon], batch.mask(horizon))
        if self.config.policy_prior == "cloned":
            return -planned * (action - batch.actions[:horizon]).square().mean(-1)
        assert batch.plan_mean is not None and batch.plan_std is not None
        std = batch.plan_std[:horizon].clamp(min=PLAN_STD_MIN)
        deviation = (action - batch.plan_mean[:horizon]) / std
        log_density = (-0.5 * deviation.square() - std.log() - HALF_LOG_2PI).sum(-1)
        weight = torch.where(scale > PRIOR_FROM_SCALE, action_dim**2 / 61 / scale, torch.zeros_like(scale))
        return planned * weight * log_density

    def _sample(self, z: Tensor, eps: Tensor) -> PolicySample:
        """One action per latent for the draws `eps`; gradients flow through mean and log_std (reparameterised)."""
        mean, log_std = self.nets.policy(z)
        return distribution(self.model.policy.head, mean, log_std, eps, self.config.entropy)

    def _step(self, loss: Tensor, kind: Literal["model", "policy"]) -> dict[str, Tensor]:
        """Backward, clip, step; returns the gradient norms before clipping, of the whole and by part."""
        if kind not in self._steppers:
            optimizer = self.model_optimizer if kind == "model" else self.policy_optimizer
            modules = {part: getattr(self.model, part) for part in PARTS[kind]}
            parts = {part: list(module.parameters()) for part, module in modules.items() if module is not None}
            self._steppers[kind] = self.nets.stepper(optimizer, parts, self.config.grad_clip)
        stepper = self._steppers[kind]
        stepper.clear()
        loss.backward()  # type: ignore[no-untyped-call]
        total, norms = stepper()
        by_part = {f"grad_norm/{part}": norm for part, norm in norms.items()} if len(norms) > 1 else {}
        return {f"grad_norm/{kind}": total, **by_part}

    def state_dict(self) -> dict[str, Any]:
        """Optimizers and running scale; the model's own weights are not in it."""
        return {
            "model_optimizer": self.model_optimizer.state_dict(),
            "policy_optimizer": self.policy_optimizer.state_dict(),
            "scale": self.scale.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave; learning rates stay those of this learner's settings."""
        _take_over(self.model_optimizer, state["model_optimizer"])
        _take_over(self.policy_optimizer, state["policy_optimizer"])
        self.scale.load_state_dict(state["scale"])


def _masked(x: Tensor, mask: Tensor | None, dim: int | None = None) -> Tensor:
    """x with zeros where the mask is 0; the mask has x's last dimensions but for `dim`."""
    if mask is None:
        return x
    return x * (mask if dim is None else mask.unsqueeze(dim))


def _average(x: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of x over what the mask, which broadcasts to x, leaves."""
    return x.mean() if mask is None else (x * mask).sum() / mask.expand_as(x).sum()


def _take_over(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load the averages and counts, not the settings: a run that continues may have got others."""
    settings = [{name: value for name, value in g.items() if name != "params"} for g in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        group.update(own)
