"""One update of the world model, the Q ensemble, the policy prior and the target (TD-MPC2, eq. 3 and 4).

Shapes: H horizon, B batch, O observation, A action, L latent, N heads, K bins; time comes first.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Generator, Tensor

from tdmpc_lab.agent.clipped_step import ClippedStep
from tdmpc_lab.agent.policy import PolicySample, distribution
from tdmpc_lab.agent.replay import Batch
from tdmpc_lab.agent.scale import RunningScale
from tdmpc_lab.agent.training_model import TrainingModel
from tdmpc_lab.agent.world_model import WorldModel
from tdmpc_lab.config.schema import AgentConfig

POLICY_ADAM_EPS = 1e-5
PARTS = {"model": ("encoder", "dynamics", "reward", "termination", "q"), "policy": ("policy",)}
"""What each of the two optimizers trains."""


class Learner:
    """Losses, optimizers and running scale for one world model.

    `update` takes one batch and returns its losses as scalars on the device; it never waits for the device.
    """

    def __init__(self, model: WorldModel, config: AgentConfig, *, discount: float, generator: Generator) -> None:
        self.model = model
        self.nets = TrainingModel(model)
        self.config = config
        self.discount = discount
        self.generator = generator
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

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """Train on one batch: model and Q, then the policy on the detached latents, then the target."""
        with torch.no_grad():
            next_z = self.nets.encoder(batch.observations[1:])  # (H, B, L)
            target = self.td_target(next_z, batch.rewards, batch.terminated)  # (H, B)
        latents, losses = self.model_losses(batch, next_z, target)
        losses |= self._step(losses["loss/total"], "model")
        loss, metrics = self.policy_loss(latents.detach())
        losses |= metrics | self._step(loss, "policy")
        self.model.update_target(self.config.tau)
        losses["td_target"] = target.mean()
        return {name: value.detach() for name, value in losses.items()}

    @torch.no_grad()
    def td_target(self, next_z: Tensor, reward: Tensor, terminated: Tensor) -> Tensor:
        """r + γ (1 − terminated) · min of two random target heads at (next_z, a ~ policy): (H, B).

        A truncated step (time limit) is not terminated: its value is bootstrapped as any other.
        """
        action = self._sample(next_z).action
        heads = self.model.two_heads(self.generator)
        value = self.nets.q_values(next_z, action, heads, target=True).amin(0)
        return reward + self.discount * (1 - terminated) * value

    def model_losses(self, batch: Batch, next_z: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Roll the model through the batch; latents (H + 1, B, L) and the weighted losses.

        Args:
            next_z: encoded next observations (H, B, L), without gradient: the consistency target.
            target: TD targets (H, B), without gradient.
        """
        model, config = self.nets, self.config
        horizon = batch.actions.shape[0]
        first = model.encoder(batch.observations[0])
        after = model.unroll(first, batch.actions)
        latents = torch.cat([first.unsqueeze(0), after])  # (H + 1, B, L)
        before = latents[:-1]

        rho = config.rho ** torch.arange(horizon, device=first.device)  # (H,)
        consistency = (after - next_z).square().mean((1, 2))
        reward = model.regression.loss(model.reward(before, batch.actions), batch.rewards).mean(1)
        q_logits = model.q(before, batch.actions, dropout=self.generator)  # (N, H, B, K)
        value = model.regression.loss(q_logits, target).mean((0, 2))
        losses = {
            "loss/consistency": (rho * consistency).sum() / horizon,
            "loss/reward": (rho * reward).sum() / horizon,
            "loss/value": (rho * value).sum() / horizon,
            "loss/termination": F.binary_cross_entropy_with_logits(model.termination(after), batch.terminated),
        }
        losses["loss/total"] = (
            config.consistency_weight * losses["loss/consistency"]
            + config.reward_weight * losses["loss/reward"]
            + config.value_weight * losses["loss/value"]
            + config.termination_weight * losses["loss/termination"]
        )
        return latents, losses

    def policy_loss(self, latents: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """ρ-weighted −(Q/S + entropy) over latents (H + 1, B, L) without gradient. Moves the running scale first."""
        config = self.config
        sample = self._sample(latents)
        heads = self.model.two_heads(self.generator)
        q = self.nets.q_values(latents, sample.action, heads, dropout=self.generator, frozen=True).mean(0)  # (H + 1, B)
        self.scale.update(q[0].detach())
        rho = config.rho ** torch.arange(latents.shape[0], device=q.device)
        objective = q / self.scale.value + config.entropy_weight * sample.scaled_entropy
        loss = -(rho * objective.mean(1)).mean()
        return loss, {
            "loss/policy": loss,
            "policy/q": q.mean(),
            "policy/scale": self.scale.value.clone(),
            "policy/log_prob": sample.log_prob.mean(),
            "policy/log_std": sample.log_std.mean(),
        }

    def _sample(self, z: Tensor) -> PolicySample:
        """Draw one action per latent; gradients flow through mean and log_std (reparameterised)."""
        mean, log_std = self.nets.policy(z)
        eps = torch.randn(mean.shape, generator=self.generator, device=mean.device)
        return distribution(self.model.policy.head, mean, log_std, eps)

    def _step(self, loss: Tensor, kind: Literal["model", "policy"]) -> dict[str, Tensor]:
        """Backward, clip, step; returns the gradient norms before clipping, of the whole and by part."""
        if kind not in self._steppers:
            optimizer = self.model_optimizer if kind == "model" else self.policy_optimizer
            parts = {part: list(getattr(self.model, part).parameters()) for part in PARTS[kind]}
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


def _take_over(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load the averages and counts, not the settings: a run that goes on may have got others."""
    settings = [{name: value for name, value in g.items() if name != "params"} for g in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        group.update(own)
