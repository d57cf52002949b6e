"""What tells why an agent does not learn, measured on the episodes of its replay; nothing here changes the agent.

Everything is in the rewards that the agent learns from, shaping and scale included. Random draws come from a
generator of their own, so that a training is the same with and without it.

Shapes: T steps of an episode, N steps in all, H horizon, B batch, A action, L latent.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from tdmpc_lab.agent.agent import Agent
from tdmpc_lab.agent.regression import symlog
from tdmpc_lab.agent.replay import Batch, Episode, Replay

MOST_STEPS = 2048
"""Steps of the newest episodes that are looked at; the last one is taken whole."""
VALUE_STEPS = 512
"""The same for values: returns of older episodes are those of a worse agent."""
SEQUENCES = 256
PLANS = 8
SATURATED = 0.95


@dataclass(frozen=True)
class _Steps:
    """The steps of several episodes, one after another, on the agent's device."""

    observations: Tensor  # (N, O)
    actions: Tensor  # (N, A)
    rewards: Tensor  # (N,)
    terminated: Tensor  # (N,) bool
    returns: Tensor  # (N,) discounted, to the episode's end; a truncated end counts with its estimated value


@torch.no_grad()
def diagnose(agent: Agent, replay: Replay, *, seed: int) -> dict[str, float]:
    """Figures named `diag/…`; those of the replay alone while it holds no episode that can be learned from.

    Args:
        seed: of the draws made here.
    """
    episodes = replay.newest(MOST_STEPS)
    if not episodes or replay.sequences == 0:
        return replay.ages() if episodes else {}
    generator = Generator().manual_seed(seed)
    batch = replay.sample(SEQUENCES, generator=Generator(replay.placement.device).manual_seed(seed))
    steps = _steps(agent, episodes)
    return {
        **model_errors(agent, batch),
        **_latents(agent, steps),
        **_values(agent, steps, _whole(episodes, VALUE_STEPS)),
        **({} if agent.model.termination is None else _termination(agent, steps, [len(e) for e in episodes])),
        **_actions(agent, steps),
        "diag/planner_distance": _planner_distance(agent, steps, generator, seed),
        **replay.ages(),
    }


def model_errors(agent: Agent, batch: Batch) -> dict[str, float]:
    """The latent and the reward predicted d steps ahead, for d = 1 … H, against what came.

    `diag/model_error_d` is the mean squared error of the latent over its variance in the batch: 0 is perfect, 1 no
    better than always predicting the mean latent. Steps that end an episode are left out of it, for without
    `train.past_ends` they come at d = H alone; `diag/model_error_end` is theirs, at the greatest depth at which there
    is one. `diag/reward_error_d` is the mean absolute error of the reward. What lies behind an end counts nowhere.
    """
    model, horizon = agent.model, agent.config.horizon
    encoded = model.encoder(batch.observations[: horizon + 1])  # (H + 1, B, L)
    z = encoded[0]
    figures: dict[str, float] = {}
    for d, action in enumerate(batch.actions[:horizon], start=1):
        reward = model.predict_reward(z, action)  # (B,)
        z = model.dynamics(z, action)
        there = torch.ones_like(reward, dtype=torch.bool) if batch.valid is None else batch.valid[d - 1] > 0
        error = (z - encoded[d]).square().mean(-1) / _variance(encoded[d][there]).clamp(min=1e-12)  # (B,)
        ends = batch.terminated[d - 1] > 0
        if bool((there & ~ends).any()):
            figures[f"diag/model_error_{d}"] = float(error[there & ~ends].mean())
        if bool(ends.any()):
            figures["diag/model_error_end"] = float(error[ends].mean())
        if bool(there.any()):
            figures[f"diag/reward_error_{d}"] = float((reward - batch.rewards[d - 1]).abs()[there].mean())
    return figures


def _latents(agent: Agent, steps: _Steps) -> dict[str, float]:
    """How far latents of different states differ: the variance of a SimNorm group, summed over its entries.

    0 where all states look alike; at most 1 − 1/V for groups of V entries.
    """
    z = agent.model.encoder(steps.observations)
    return {"diag/latent_variance": float(_variance(z)) * agent.config.simnorm_dim}


def _variance(z: Tensor) -> Tensor:
    """Mean squared distance of latents (B, L) from their mean, per entry."""
    return (z - z.mean(0)).square().mean()


def _whole(episodes: Sequence[Episode], most: int) -> int:
    """Steps of the first episodes that have `most` steps or more together."""
    count = 0
    for episode in episodes:
        count += len(episode)
        if count >= most:
            break
    return count


def _values(agent: Agent, steps: _Steps, newest: int) -> dict[str, float]:
    """Q of the actions taken against the discounted return that followed, and what the bins cut off.

    Q is compared at the first `newest` steps.
    """
    q = _q(agent, agent.model.encoder(steps.observations[:newest]), steps.actions[:newest])
    returns = steps.returns[:newest]
    low, high = agent.config.bin_low, agent.config.bin_high

    def clipped(values: Tensor) -> float:
        compressed = symlog(values)
        return float(((compressed < low) | (compressed > high)).float().mean())

    return {
        "diag/value_predicted": float(q.mean()),
        "diag/value_realised": float(returns.mean()),
        "diag/value_bias": float((q - returns).mean()),
        "diag/value_spread": float(returns.std(correction=0)),
        "diag/reward_clipped": clipped(steps.rewards),
        "diag/value_clipped": clipped(steps.returns),
    }


def _termination(agent: Agent, steps: _Steps, lengths: Sequence[int]) -> dict[str, float]:
    """Precision and recall of the termination head after H predicted steps; each only where it has a meaning.

    H, since no sub-sequence continues behind an end: an end is learned from as the last of H steps and as no other.
    `diag/termination_recall_1` says what became of it one step ahead. `lengths` are those of the episodes in `steps`.
    """
    horizon = agent.config.horizon
    figures = {"diag/terminated": float(steps.terminated.float().mean())}
    ends = itertools.accumulate(lengths)  # the first step behind each episode
    runs = [torch.arange(end - n, end - horizon + 1) for end, n in zip(ends, lengths, strict=True) if n >= horizon]
    if not runs:
        return figures
    starts = torch.cat(runs).to(agent.device)
    said, ended = _foretold(agent, steps, starts, horizon)
    right = float((said & ended).sum())
    if bool(said.any()):
        figures["diag/termination_precision"] = right / float(said.sum())
    if bool(ended.any()):
        figures["diag/termination_recall"] = right / float(ended.sum())
        last = starts[ended] + horizon - 1
        figures["diag/termination_recall_1"] = float(_foretold(agent, steps, last, 1)[0].float().mean())
    return figures


def _foretold(agent: Agent, steps: _Steps, starts: Tensor, depth: int) -> tuple[Tensor, Tensor]:
    """Whether an end is foretold after `depth` steps from `starts` (S,), and whether it came: two times (S,)."""
    z = agent.model.encoder(steps.observations[starts])
    for d in range(depth):
        z = agent.model.dynamics(z, steps.actions[starts + d])
    assert agent.model.termination is not None
    return agent.model.termination(z) > 0, steps.terminated[starts + depth - 1]  # logit 0 is probability 0.5


def _actions(agent: Agent, steps: _Steps) -> dict[str, float]:
    """Shares of action entries near the ends of their range: of those taken, and of the policy's mean.

    `diag/action_stuck` is the lower of both for the entry of an action for which that is highest.
    """
    raw, log_std = agent.model.policy(agent.model.encoder(steps.observations))
    taken = (steps.actions.abs() > SATURATED).float().mean(0)  # (A,)
    policy = (torch.tanh(raw).abs() > SATURATED).float().mean(0)
    return {
        "diag/action_saturation": float(taken.mean()),
        "diag/policy_saturation": float(policy.mean()),
        "diag/action_stuck": float(torch.minimum(taken, policy).max()),
        "diag/policy_std": float(log_std.exp().mean()),
    }


def _planner_distance(agent: Agent, steps: _Steps, generator: Generator, seed: int) -> float:
    """How far planning goes from the policy prior's mean action, per entry, at some of the states."""
    count = min(PLANS, len(steps.rewards))
    chosen = torch.randperm(len(steps.rewards), generator=generator)[:count].to(agent.device)
    observations = steps.observations[chosen]
    state = agent.plan_state(count, seed=seed)
    planned = torch.from_numpy(agent.act(observations.cpu().numpy(), state, explore=False)).to(agent.device)
    prior = torch.tanh(agent.model.policy(agent.model.encoder(observations))[0])
    return float((planned - prior).abs().mean())


def _q(agent: Agent, z: Tensor, action: Tensor) -> Tensor:
    """The mean of all online heads, (...)."""
    heads = torch.arange(agent.model.q.heads, device=z.device)
    return agent.model.q_values(z, action, heads).mean(0)


def _steps(agent: Agent, episodes: Sequence[Episode]) -> _Steps:
    def joined(parts: list[Tensor]) -> Tensor:
        return torch.cat(parts).to(agent.device)

    return _Steps(
        joined([torch.from_numpy(e.observations[:-1]) for e in episodes]),
        joined([torch.from_numpy(e.actions) for e in episodes]),
        joined([torch.from_numpy(e.rewards) for e in episodes]),
        joined([torch.from_numpy(e.terminated) for e in episodes]),
        joined([_returns(agent, e) for e in episodes]),
    )


def _returns(agent: Agent, episode: Episode) -> Tensor:
    """Discounted returns (T,) on the host."""
    rest = 0.0
    if not episode.terminated[-1]:
        z = agent.model.encoder(torch.from_numpy(episode.observations[-1:]).to(agent.device))
        rest = float(_q(agent, z, torch.tanh(agent.model.policy(z)[0])))
    returns = []
    for reward in episode.rewards[::-1].tolist():
        rest = reward + agent.discount * rest
        returns.append(rest)
    return torch.tensor(returns[::-1])
