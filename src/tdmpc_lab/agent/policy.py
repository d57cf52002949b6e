"""The policy prior: a Gaussian over actions given the latent, in the two forms the experiments compare."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tdmpc_lab.agent.networks import hidden_layers
from tdmpc_lab.config.schema import Entropy, PolicyHead

HALF_LOG_2PI = 0.9189385


@dataclass(frozen=True)
class PolicySample:
    """A draw from the policy. Leading shape (...) is the latent's."""

    action: Tensor  # (..., A) in [-1, 1]
    mean: Tensor  # (..., A) the action without noise
    log_prob: Tensor  # (...) log-density of `action`
    entropy: Tensor  # (...) the entropy term of the policy loss
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


def drawn_action(head: PolicyHead, mean: Tensor, log_std: Tensor, eps: Tensor) -> Tensor:
    """The action in [−1, 1] belonging to the standard normal draw `eps`; all (..., A)."""
    if head == "squashed_gaussian":
        return torch.tanh(mean + eps * log_std.exp())
    return (torch.tanh(mean) + eps * log_std.exp()).clamp(-1, 1)


def distribution(head: PolicyHead, mean: Tensor, log_std: Tensor, eps: Tensor, entropy: Entropy) -> PolicySample:
    """The sample belonging to the standard normal draw `eps`; all tensors (..., A).

    With ℓ the log-density of the Gaussian and a the action:

    - `gaussian`: −ℓ · A. Its mean grows with log_std without limit.
    - `squashed`: the entropy of the action itself. Of the squashed head −ℓ', ℓ' = ℓ − Σ ln(1 − a² + 1e-6) (Soft
      Actor-Critic, arXiv 1801.01290, appendix C); of the clipped head see `clipped_entropy`.
    """
    gaussian = (-0.5 * eps.square() - log_std - HALF_LOG_2PI).sum(-1)
    action = drawn_action(head, mean, log_std, eps)
    mean = torch.tanh(mean)
    log_prob = gaussian
    if head == "squashed_gaussian":
        log_prob = gaussian - torch.log(torch.relu(1 - action.square()) + 1e-6).sum(-1)
    if entropy == "gaussian":
        # −ℓ · A as the official code computes it, so that a training that began with it continues to the last bit
        term = -log_prob * (gaussian * eps.shape[-1] / (log_prob + 1e-8))
    elif head == "squashed_gaussian":
        term = -log_prob
    else:
        term = clipped_entropy(mean, log_std).sum(-1)
    return PolicySample(action, mean, log_prob, term, log_std)


def clipped_entropy(mean: Tensor, log_std: Tensor) -> Tensor:
    """Entropy of a Gaussian that is clamped to [−1, 1], elementwise.

    Clamping gathers the tails in two points. So this is the entropy with respect to length on (−1, 1) and to points at
    its ends, −∫ p ln p − Σ P ln P: bounded above as that of the squashed Gaussian is. It is given in closed form: a
    sample's own log-probability jumps where it meets an end, and its gradient would miss the jump.
    """
    std = log_std.exp()
    low, high = (-1 - mean) / std, (1 - mean) / std
    inside: Tensor = torch.special.ndtr(high) - torch.special.ndtr(low)
    edges = low * _density(low) - high * _density(high)  # ∫ x² φ(x) dx between both is inside + edges
    interior = inside * (log_std + HALF_LOG_2PI) + 0.5 * (inside + edges)
    return interior - _log_weighted(low) - _log_weighted(-high)


def _density(x: Tensor) -> Tensor:
    return (-0.5 * x.square() - HALF_LOG_2PI).exp()


def _log_weighted(x: Tensor) -> Tensor:
    """P ln P of the probability P below x; 0 where P is too small for a number."""
    below: Tensor = torch.special.ndtr(x)
    log_below: Tensor = torch.special.log_ndtr(x.clamp(min=-30.0))
    return below * log_below
