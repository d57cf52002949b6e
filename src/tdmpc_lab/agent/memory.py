"""How much memory training takes on its device, from the sizes alone: nothing is allocated, no torch is needed.

Counted are the tensors that live at once, in float32: weights with gradients and Adam's two moments, what an
update keeps for its backward pass, what a plan holds. Two factors stand for the rest, see below.
"""

from __future__ import annotations

from dataclasses import dataclass

from tdmpc_lab.config.schema import AgentConfig, PlannerConfig

_FLOAT = 4  # bytes
_KEPT_PER_UNIT = 3  # of a hidden unit: before and after LayerNorm, and after Mish, which is the next layer's input
_BACKWARD = 1.25  # gradients of activations come and go during the backward pass
_ALLOCATOR = 1.15  # torch's caching allocator keeps blocks that fit nothing at the moment
CUDA_CONTEXT = 700 * 2**20  # bytes: driver context, cuBLAS workspace and kernels of a torch process


@dataclass(frozen=True)
class DeviceMemory:
    """Bytes on the training device, by what they are for."""

    weights: int
    """All networks, the target with them."""
    packed: int
    """The planner's own copies of the weights, see `tdmpc_lab.agent.packed`; in float32."""
    training: int
    """Gradients and Adam's moments."""
    update: int
    """Activations of one update at the full batch."""
    plan: int
    """Tensors of one plan for all environments at once."""

    @property
    def total(self) -> int:
        """The most that lives at once: an update and a plan never do."""
        return self.weights + self.packed + self.training + max(self.update, self.plan)


def device_memory(
    trained: int,
    target: int,
    action_dim: int,
    agent: AgentConfig,
    planner: PlannerConfig,
    *,
    batch_size: int,
    envs: int,
) -> DeviceMemory:
    """Estimate for one agent.

    Args:
        trained: trainable parameters, world model and policy (`total` of `parameter_counts`).
        target: parameters of the target ensemble.
        batch_size: sub-sequences per update.
        envs: environments planned for in one call.
    """
    return DeviceMemory(
        weights=_FLOAT * (trained + target),
        packed=_FLOAT * trained,
        training=_FLOAT * 3 * trained,
        update=round(_FLOAT * _BACKWARD * _ALLOCATOR * _update_floats(agent, batch_size)),
        plan=round(_FLOAT * _ALLOCATOR * _plan_floats(agent, planner, action_dim, envs)),
    )


def _update_floats(agent: AgentConfig, batch: int) -> int:
    """Numbers kept for the backward pass of the loss of model and Q, the larger of an update's two."""
    rows = agent.horizon * batch
    hidden = _KEPT_PER_UNIT * agent.hidden_layers * agent.hidden_dim
    latent = _KEPT_PER_UNIT * agent.latent_dim  # before and after SimNorm, and stacked with the others
    heads = 3 * agent.bins  # logits, their log-softmax, the two-hot target
    encoder = batch * (hidden + latent)
    dynamics = rows * (hidden + latent + agent.latent_dim)
    reward = rows * (hidden + heads)
    q = agent.q_heads * rows * (hidden + agent.hidden_dim + heads)  # one more for the dropout of the first layer
    termination = rows * 2 * _KEPT_PER_UNIT * agent.termination_dim * agent.termination
    return encoder + dynamics + reward + q + termination


def _plan_floats(agent: AgentConfig, planner: PlannerConfig, action_dim: int, envs: int) -> int:
    """Numbers held where the rewards of a rollout are made: all latents, and a hidden layer of all steps at once.

    A CPU takes fewer steps at once where they are many.
    """
    inputs = agent.latent_dim + action_dim
    latents = (agent.horizon + 2) * inputs
    hidden = agent.horizon * _KEPT_PER_UNIT * agent.hidden_dim
    draws = (planner.iterations + 3) * agent.horizon * action_dim
    return envs * planner.samples * (latents + hidden + draws)
