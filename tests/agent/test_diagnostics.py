"""The figures against slow, separate computations on a small agent with random weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from agent_fixtures import perturbed, tiny_agent

from tdmpc_lab.agent import Agent, Episode, Replay
from tdmpc_lab.agent.diagnostics import diagnose, model_errors

HORIZON = 3


def episode(steps: int, seed: int, *, terminated: bool) -> Episode:
    rng = np.random.default_rng(seed)
    ended = np.zeros(steps, dtype=bool)
    ended[-1] = True
    never = np.zeros(steps, dtype=bool)
    return Episode(
        rng.normal(size=(steps + 1, 5)).astype(np.float32),
        rng.uniform(-1, 1, (steps, 2)).astype(np.float32),
        rng.normal(size=steps).astype(np.float32),
        ended if terminated else never,
        never if terminated else ended,
    )


def filled(*episodes: Episode, capacity: int = 200) -> Replay:
    replay = Replay(
        capacity=capacity, observation_dim=5, action_dim=2, horizon=HORIZON, device=torch.device("cpu"), seed=4
    )
    for one in episodes:
        replay.add(one)
    return replay


@pytest.fixture
def agent() -> Agent:
    agent = tiny_agent(3)
    perturbed(agent.model)
    return agent


def q(agent: Agent, obs: np.ndarray, action: np.ndarray) -> float:
    """Mean of the heads, one state at a time, through the single networks."""
    model = agent.model
    with torch.no_grad():
        z = model.encoder(torch.from_numpy(obs))
        logits = model.q(z, torch.from_numpy(action))
        bins = torch.softmax(logits.double(), -1) @ model.regression.centres.double()
        return float((bins.sign() * torch.expm1(bins.abs())).mean())


def test_values_against_returns_by_hand(agent: Agent) -> None:
    won, cut = episode(6, 1, terminated=True), episode(4, 2, terminated=False)
    figures = diagnose(agent, filled(won, cut), seed=1)
    predicted, realised = [], []
    for one in (won, cut):
        for t in range(len(one)):
            predicted.append(q(agent, one.observations[t], one.actions[t]))
            total = sum(0.9 ** (k - t) * float(one.rewards[k]) for k in range(t, len(one)))
            if one is cut:  # a time limit: the last state keeps its value
                with torch.no_grad():
                    z = agent.model.encoder(torch.from_numpy(one.observations[-1]))
                    action = torch.tanh(agent.model.policy(z)[0]).numpy()
                total += 0.9 ** (len(one) - t) * q(agent, one.observations[-1], action)
            realised.append(total)
    assert figures["diag/value_predicted"] == pytest.approx(np.mean(predicted), rel=1e-4)
    assert figures["diag/value_realised"] == pytest.approx(np.mean(realised), rel=1e-4)
    bias = np.mean(predicted) - np.mean(realised)
    assert figures["diag/value_bias"] == pytest.approx(bias, rel=1e-3)
    assert figures["diag/value_spread"] == pytest.approx(np.std(realised), rel=1e-3)


def test_values_are_those_of_the_newest_episodes(agent: Agent) -> None:
    old, new = (episode(300, n, terminated=True) for n in (1, 2))
    old.rewards[:] = 5.0
    both, alone = (diagnose(agent, filled(*kept, capacity=900), seed=1) for kept in ((old, new, new), (new, new)))
    for name in ("predicted", "realised", "bias", "spread"):
        assert both[f"diag/value_{name}"] == pytest.approx(alone[f"diag/value_{name}"], rel=1e-5)


def test_termination_is_counted_step_by_step(agent: Agent) -> None:
    episodes = [episode(8, n, terminated=n % 2 == 0) for n in range(6)]
    figures = diagnose(agent, filled(*episodes), seed=1)
    right = said = ended = 0
    with torch.no_grad():
        for one in episodes:
            for t in range(len(one)):
                z = agent.model.encoder(torch.from_numpy(one.observations[t]))
                z = agent.model.dynamics(z, torch.from_numpy(one.actions[t]))
                claims = float(torch.sigmoid(agent.model.termination(z))) > 0.5
                said, ended = said + claims, ended + bool(one.terminated[t])
                right += claims and bool(one.terminated[t])
    assert 0 < right < said  # else the test would not tell the two apart
    assert figures["diag/termination_precision"] == pytest.approx(right / said)
    assert figures["diag/termination_recall"] == pytest.approx(right / ended)
    assert figures["diag/terminated"] == pytest.approx(3 / 48)


def test_without_an_end_there_is_no_recall(agent: Agent) -> None:
    figures = diagnose(agent, filled(episode(8, 1, terminated=False)), seed=1)
    assert "diag/termination_recall" not in figures
    assert all(math.isfinite(value) for value in figures.values())


def test_model_errors_by_depth(agent: Agent) -> None:
    replay = filled(*(episode(9, n, terminated=False) for n in range(4)))
    batch = replay.sample(16)
    with torch.no_grad():
        figures = model_errors(agent, batch)
        model = agent.model
        for d in range(1, HORIZON + 1):
            errors, spread, rewards = [], [], []
            for b in range(16):
                z = model.encoder(batch.observations[0, b])
                for t in range(d):
                    reward = model.predict_reward(z, batch.actions[t, b])
                    z = model.dynamics(z, batch.actions[t, b])
                rewards.append(abs(float(reward - batch.rewards[d - 1, b])))
                true = model.encoder(batch.observations[d, b])
                errors.append((z - true).square().mean().item())
                spread.append(true.numpy())
            variance = np.mean(np.var(np.array(spread), axis=0))
            assert figures[f"diag/model_error_{d}"] == pytest.approx(np.mean(errors) / variance, rel=1e-3)
            assert figures[f"diag/reward_error_{d}"] == pytest.approx(np.mean(rewards), rel=1e-3)


def test_actions_at_their_ends_and_values_beyond_the_bins(agent: Agent) -> None:
    one = episode(10, 1, terminated=False)
    one.actions[:4] = 0.99
    one.actions[4:] = 0.1
    one.rewards[:] = 0.0
    one.rewards[0] = 1e6  # symlog 13.8, the bins end at 10
    figures = diagnose(agent, filled(one), seed=1)
    assert figures["diag/action_saturation"] == pytest.approx(0.4)
    assert figures["diag/reward_clipped"] == pytest.approx(0.1)
    assert figures["diag/value_clipped"] == pytest.approx(0.1)


def test_the_age_of_what_is_sampled() -> None:
    """Horizon 3: 5 steps give 3 sub-sequences, 4 give 2, 2 give none."""
    replay = filled(*(episode(steps, steps, terminated=False) for steps in (5, 2, 4)))
    assert replay.ages() == {
        "diag/replay_age_mean": pytest.approx((3 * 6 + 2 * 0) / 5),
        "diag/replay_age_max": 6.0,
        "diag/never_sampled": pytest.approx(1 / 3),
    }


def test_the_newest_episodes_come_back_as_they_were_added() -> None:
    episodes = [episode(steps, steps, terminated=False) for steps in (30, 12, 9, 7)]
    replay = filled(*episodes, capacity=40)  # the ring has gone round once
    newest = replay.newest(8)
    assert [len(one) for one in newest] == [7, 9]
    for found, added in zip(newest, reversed(episodes), strict=False):
        np.testing.assert_array_equal(found.observations, added.observations)
        np.testing.assert_array_equal(found.actions, added.actions)
        np.testing.assert_array_equal(found.rewards, added.rewards)
        np.testing.assert_array_equal(found.truncated, added.truncated)


def test_nothing_to_look_at_yet(agent: Agent) -> None:
    assert diagnose(agent, filled(), seed=1) == {}
    assert diagnose(agent, filled(episode(2, 1, terminated=False)), seed=1) == {}


def test_the_training_is_the_same_with_it_and_without(agent: Agent) -> None:
    replay = filled(*(episode(9, n, terminated=False) for n in range(4)))
    before = (replay.state_dict()["generator"], agent.generator.get_state(), torch.get_rng_state())
    weights = {name: tensor.clone() for name, tensor in agent.model.state_dict().items()}
    assert diagnose(agent, replay, seed=1) == diagnose(agent, replay, seed=1)
    after = (replay.state_dict()["generator"], agent.generator.get_state(), torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(torch.equal(weights[name], tensor) for name, tensor in agent.model.state_dict().items())
    assert all(parameter.grad is None for parameter in agent.model.parameters())
