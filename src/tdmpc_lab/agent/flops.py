"""Floating-point operations of one plan and one update: the matrix products alone, a multiplication and an addition
counted as two. torch is not needed.

With w(part) the weights of a part's Linears (biases left out) a row through it takes 2·w operations, its gradient by
the input as many again, and so does its gradient by the weights.

    plan    2·E·( I·D·(H·(w(dynamics) + w(reward) + w(termination)) − 2·L·U)  drawn sequences; the start passes the
                                                                              two first layers once, not D times
                + I·S·(w(policy) + 2·w(one Q head))                           terminal values
                + P·H·(w(policy) + w(dynamics) + w(reward) + w(termination))) the policy's own sequences, once
    update  2·B·( W·(w(encoder) + w(policy) + 2·w(one Q head))                targets, forward
                + 3·(w(encoder) + H·(w(dynamics) + w(reward) + w(termination) + N·w(one Q head)))
                + (H + 1)·(3·w(policy) + 2·2·w(one Q head)))                  policy; no gradient by the heads' weights

E environments, I iterations, S samples, P of them the policy's, D = S − P, H horizon, W = H + td_steps − 1, L latent,
U hidden, B batch, N heads. Without a termination head w(termination) is 0; with pessimism all heads are valued, not 2.
"""

from __future__ import annotations

from itertools import pairwise

from tdmpc_lab.config.schema import AgentConfig, PlannerConfig


def linear_weights(observation_dim: int, action_dim: int, agent: AgentConfig) -> dict[str, int]:
    """Weights of the Linears by part; `q` is one head."""
    hidden = [agent.hidden_dim] * agent.hidden_layers
    latent, both = agent.latent_dim, agent.latent_dim + action_dim
    widths = {
        "encoder": [observation_dim, *hidden, latent],
        "dynamics": [both, *hidden, latent],
        "reward": [both, *hidden, agent.bins],
        "termination": [latent, agent.termination_dim, agent.termination_dim, 1] if agent.termination else [],
        "q": [both, *hidden, agent.bins],
        "policy": [latent, *hidden, 2 * action_dim],
    }
    return {part: sum(a * b for a, b in pairwise(sizes)) for part, sizes in widths.items()}


def plan_flops(
    observation_dim: int, action_dim: int, agent: AgentConfig, planner: PlannerConfig, *, envs: int, iterations: int
) -> int:
    """Of one plan for `envs` environments; `iterations` as in force (`planner_iterations`)."""
    w = linear_weights(observation_dim, action_dim, agent)
    step = w["dynamics"] + w["reward"] + w["termination"]
    proposed = planner.policy_trajectories
    drawn = planner.samples - proposed
    rolled = iterations * drawn * (agent.horizon * step - 2 * agent.latent_dim * agent.hidden_dim)
    valued = agent.q_heads if planner.pessimism > 0 else 2
    terminal = iterations * planner.samples * (w["policy"] + valued * w["q"])
    return 2 * envs * (rolled + terminal + proposed * agent.horizon * (w["policy"] + step))


def update_flops(observation_dim: int, action_dim: int, agent: AgentConfig, *, batch_size: int) -> int:
    """Of one update."""
    w, horizon = linear_weights(observation_dim, action_dim, agent), agent.horizon
    targets = (horizon + agent.td_steps - 1) * (w["encoder"] + w["policy"] + 2 * w["q"])
    per_step = w["dynamics"] + w["reward"] + w["termination"] + agent.q_heads * w["q"]
    model = 3 * (w["encoder"] + horizon * per_step)
    policy = (horizon + 1) * (3 * w["policy"] + 4 * w["q"])
    return 2 * batch_size * (targets + model + policy)
