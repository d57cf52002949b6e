"""The policy prior: a Gaussian over actions given the latent, in the two forms the experiments compare."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from tdmpc_lab.agent.networks import hidden_layers
from tdmpc_lab.config.schema import PolicyHead

HALF_LOG_2PI = 0.9189385


@dataclass(frozen=True)
class PolicySample:
    """A draw from the policy. Leading shape (...) is the latent's."""

    action: Tensor  # (..., A) in [-1, 1]
    mean: Tensor  # (..., A) the action without noise
    log_prob: Tensor  # (...) log-density of `action`
    scaled_entropy: Tensor  # (...) the entropy term of the policy loss
    log_std: Tensor  # (..., A)


class Policy(nn.Module):
    """Latent to a distribution over actions: (..., L) → Gaussian (..., A).

    `squashed_gaussian` draws u = mean + eps · std and acts tanh(u). `clipped_gaussian` puts the tanh on the
    mean, adds the noise after it and clamps to [−1, 1].
    """

    def __init__(
        self,
        latent_dim: int,
        action_dim: int,
        hidden_dim: int,
        layers: int,
        *,
        head: PolicyHead,
        log_std_min: float,
        log_std_max: float,
    ) -> None:
        super().__init__()
        self.net = nn.Sequential(*hidden_layers(latent_dim, hidden_dim, layers))
        self.mean_head = nn.Linear(hidden_dim, action_dim)
        self.log_std_head = nn.Linear(hidden_dim, action_dim)
        self.head = head
        self.log_std_min = log_std_min
        self.log_std_max = log_std_max

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Raw mean and log standard deviation, each (..., A); log_std lies in [log_std_min, log_std_max]."""
        h = self.net(z)
        return self.mean_head(h), self.bounded_log_std(self.log_std_head(h))

    def bounded_log_std(self, raw: Tensor) -> Tensor:
        """The second head's output, of any shape, brought into [log_std_min, log_std_max]."""
        span = self.log_std_max - self.log_std_min
        return self.log_std_min + 0.5 * span * (torch.tanh(raw) + 1)

    def sample(self, z: Tensor, generator: Generator | None) -> PolicySample:
        """Draw one action per latent; gradients flow through mean and log_std (reparameterised)."""
        mean, log_std = self(z)
        eps = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        return distribution(self.head, mean, log_std, eps)


def drawn_action(head: PolicyHead, mean: Tensor, log_std: Tensor, eps: Tensor) -> Tensor:
    """The action in [−1, 1] belonging to the standard normal draw `eps`; all (..., A)."""
    if head == "squashed_gaussian":
        return torch.tanh(mean + eps * log_std.exp())
    return (torch.tanh(mean) + eps * log_std.exp()).clamp(-1, 1)


def distribution(head: PolicyHead, mean: Tensor, log_std: Tensor, eps: Tensor) -> PolicySample:
    """The sample belonging to the standard normal draw `eps`; all arguments (..., A).

    With ℓ the Gaussian log-density and ℓ' the one corrected for the squashing, the entropy term is
    −ℓ' · (ℓ · A / (ℓ' + 1e-8)).
    """
    gaussian = (-0.5 * eps.square() - log_std - HALF_LOG_2PI).sum(-1)
    action = drawn_action(head, mean, log_std, eps)
    mean = torch.tanh(mean)
    log_prob = gaussian
    if head == "squashed_gaussian":
        log_prob = gaussian - torch.log(torch.relu(1 - action.square()) + 1e-6).sum(-1)
    scaled_entropy = -log_prob * (gaussian * eps.shape[-1] / (log_prob + 1e-8))
    return PolicySample(action, mean, log_prob, scaled_entropy, log_std)
