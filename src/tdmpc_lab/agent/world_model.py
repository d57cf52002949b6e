"""The world model with its Q ensembles and policy prior, as one module (TD-MPC2, eq. 1)."""

from __future__ import annotations

import copy

import torch
from torch import Generator, Tensor, nn

from tdmpc_lab.agent.networks import (
    Dynamics,
    Encoder,
    QEnsemble,
    QFunction,
    Reward,
    Termination,
    init_weights,
    zero_last_layer,
)
from tdmpc_lab.agent.policy import Policy
from tdmpc_lab.agent.regression import DiscreteRegression
from tdmpc_lab.config.schema import AgentConfig


class WorldModel(nn.Module):
    """Encoder, dynamics, reward, termination (None where `agent.termination` is off), Q ensemble with target, and
    policy prior.

    Shapes: observation (..., O), action (..., A), z (..., L), logits (..., K), N heads.
    """

    def __init__(self, observation_dim: int, action_dim: int, config: AgentConfig, *, seed: int = 0) -> None:
        super().__init__()
        latent, hidden, layers = config.latent_dim, config.hidden_dim, config.hidden_layers
        self.observation_dim = observation_dim
        self.action_dim = action_dim
        self.latent_dim = latent
        self.encoder = Encoder(observation_dim, latent, hidden, layers, config.simnorm_dim, norm=config.encoder_norm)
        self.dynamics = Dynamics(latent, action_dim, hidden, layers, config.simnorm_dim)
        self.reward = Reward(latent, action_dim, hidden, layers, config.bins)
        self.termination = Termination(latent, config.termination_dim) if config.termination else None
        functions = [q_function(action_dim, config) for _ in range(config.q_heads)]
        self.policy = Policy(
            latent,
            action_dim,
            hidden,
            layers,
            head=config.policy,
            log_std_min=config.log_std_min,
            log_std_max=config.log_std_max,
        )
        self.regression = DiscreteRegression(bins=config.bins, low=config.bin_low, high=config.bin_high)

        if self.reward.net[0].weight.device.type != "meta":  # a model for counting has nothing to fill in
            generator = Generator().manual_seed(seed)
            ends = () if self.termination is None else (self.termination,)
            for part in (self.encoder, self.dynamics, self.reward, *ends, *functions, self.policy):
                init_weights(part, generator)
            for net in (self.reward.net, *(f.net for f in functions)):
                zero_last_layer(net)
        self.q = QEnsemble(functions)
        self.q_target = copy.deepcopy(self.q).requires_grad_(False)

    def model_parameters(self) -> list[nn.Parameter]:
        """Everything the world-model loss trains, the encoder first: all but policy and target."""
        parts = (self.encoder, self.dynamics, self.reward, self.termination, self.q)
        return [p for part in parts if part is not None for p in part.parameters()]

    def two_heads(self, generator: Generator) -> Tensor:
        """Indices (2,) of two different heads, drawn on the device without a host round trip."""
        device = self.regression.centres.device
        return torch.rand(self.q.heads, generator=generator, device=device).topk(2).indices

    def predict_reward(self, z: Tensor, action: Tensor) -> Tensor:
        """Expected reward (...)."""
        return self.regression.decode(self.reward(z, action))

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
        """Decoded Q values (n, ...) of the chosen heads (n,) of the online or target ensemble."""
        ensemble = self.q_target if target else self.q
        return self.regression.decode(ensemble(z, action, heads=heads, dropped=dropped, frozen=frozen))

    @torch.no_grad()
    def update_target(self, tau: float) -> None:
        """Move the target Q ensemble by `tau` towards the online one."""
        torch._foreach_lerp_(list(self.q_target.parameters()), list(self.q.parameters()), tau)


def q_function(action_dim: int, config: AgentConfig) -> QFunction:
    """One Q head of the sizes in `config`."""
    return QFunction(
        config.latent_dim, action_dim, config.hidden_dim, config.hidden_layers, config.bins, config.dropout
    )


def parameter_counts(model: WorldModel) -> dict[str, int]:
    """Trainable parameters by part, and the sums `world_model` (all but the policy) and `total`."""
    parts = {
        "encoder": model.encoder,
        "dynamics": model.dynamics,
        "reward": model.reward,
        "termination": model.termination,
        "q": model.q,
        "q_target": model.q_target,
        "policy": model.policy,
    }
    counts = {
        name: 0 if part is None else sum(p.numel() for p in part.parameters() if p.requires_grad)
        for name, part in parts.items()
    }
    world_model = sum(counts[name] for name in ("encoder", "dynamics", "reward", "termination", "q"))
    return counts | {"world_model": world_model, "total": world_model + counts["policy"]}
