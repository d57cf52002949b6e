"""The gradients of an update with one or another way to compute the networks."""

from __future__ import annotations

import torch
from torch import Tensor

from tdmpc_lab.agent import Agent, Batch

PARTS = ("encoder", "dynamics", "reward", "termination", "q", "policy")


def gradients(agent: Agent, batch: Batch, nets: object) -> tuple[dict[str, Tensor], dict[str, float]]:
    """All parameters' gradients by part, flat, and the losses; the same random draws for every `nets`."""
    learner, model = agent.learner, agent.model
    learner.nets = nets
    learner.generator.manual_seed(3)
    draws = learner.draw(batch)
    with torch.no_grad():
        next_z = nets.encoder(batch.observations[1:])
        target = learner.td_target(next_z, batch, draws)
    latents, losses = learner.model_losses(batch, next_z, target, draws)
    loss, _ = learner.policy_loss(latents.detach(), batch, draws)
    found = {}
    for one, parts in ((losses["loss/total"], PARTS[:-1]), (loss, PARTS[-1:])):
        model.zero_grad()
        one.backward()
        for part in parts:
            if (module := getattr(model, part)) is not None:
                found[part] = torch.cat([p.grad.flatten() for p in module.parameters()])
    return found, {name: value.item() for name, value in losses.items()}


class AsTheyAre:
    """The `WorldModel` itself, asked for a target's logits as the losses ask a `TrainingModel`."""

    def __init__(self, model) -> None:
        self.model = model

    def unroll(self, z: Tensor, actions: Tensor) -> Tensor:
        latents = []
        for action in actions:
            z = self.model.dynamics(z, action)
            latents.append(z)
        return torch.stack(latents)

    def __getattr__(self, name: str):
        return getattr(self.model, name)
