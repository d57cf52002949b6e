from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
import torch
from agent_fixtures import numbered_episode
from hypothesis import given, settings
from hypothesis import strategies as st

from tdmpc_lab.agent.replay import Plans, Replay, choose_placement, replay_bytes
from tdmpc_lab.errors import CheckpointError, ConfigError

CPU = torch.device("cpu")


def replay(capacity: int = 100, horizon: int = 3, seed: int = 0, **switches) -> Replay:
    return Replay(
        capacity=capacity, observation_dim=5, action_dim=2, horizon=horizon, device=CPU, seed=seed, **switches
    )


def check_batch(batch, horizon):
    """Every sub-sequence is a run of neighbouring steps of one episode, with its own actions, rewards and flags."""
    obs, act = batch.observations[..., 0], batch.actions[..., 0]
    episode = torch.div(obs, 1000, rounding_mode="floor")
    step = obs - 1000 * episode
    assert (episode == episode[0]).all()
    assert (step == step[0] + torch.arange(horizon + 1).unsqueeze(1)).all()
    assert (act == -obs[:-1]).all()
    assert (batch.rewards == step[:-1]).all()
    return episode[0].long(), step[0].long()


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(1, 20), min_size=1, max_size=40),
    st.integers(1, 6),
    st.integers(21, 60),
    st.integers(0, 5),
)
def test_sequences_never_leave_their_episode(lengths, horizon, capacity, seed):
    """Any lengths, any wrap-around: what is sampled is exactly what the newest episodes that fit hold."""
    buffer = replay(capacity, horizon, seed)
    for number, steps in enumerate(lengths):
        buffer.add(numbered_episode(number, steps))
    kept, room = [], capacity
    for number in reversed(range(len(lengths))):
        room -= lengths[number] + 1
        if room < 0:
            break
        kept.append(number)
    assert len(buffer) == sum(lengths[n] for n in kept)
    possible = {(n, s) for n in kept for s in range(lengths[n] - horizon + 1)}
    assert buffer.sequences == len(possible)
    if not possible:
        with pytest.raises(ConfigError, match="the horizon"):
            buffer.sample(4)
        return
    episode, step = check_batch(buffer.sample(64), horizon)
    assert set(zip(episode.tolist(), step.tolist(), strict=True)) <= possible


def test_sampling_is_uniform_over_sub_sequences():
    buffer = replay(100, 3)
    for number, steps in enumerate([3, 5, 2, 12]):
        buffer.add(numbered_episode(number, steps))
    episode, step = check_batch(buffer.sample(28_000), 3)
    counts = {}
    for key in zip(episode.tolist(), step.tolist(), strict=True):
        counts[key] = counts.get(key, 0) + 1
    assert len(counts) == 1 + 3 + 0 + 10
    assert all(abs(n - 2000) < 250 for n in counts.values())  # 5.6 standard deviations
    assert buffer.episodes_too_short == 1


def test_an_episode_is_drawn_first_then_a_start_in_it():
    """Of lengths 3, 5 and 12 a third of the draws each, whatever their length; too short ones never."""
    buffer = replay(100, 3, draw="episode")
    for number, steps in enumerate([3, 5, 2, 12]):
        buffer.add(numbered_episode(number, steps))
    episode, step = check_batch(buffer.sample(30_000), 3)
    for number, starts in ((0, 1), (1, 3), (3, 10)):
        drawn = step[episode == number]
        assert abs(len(drawn) - 10_000) < 500  # 6 standard deviations
        counts = drawn.bincount(minlength=starts)
        assert len(counts) == starts
        assert all(abs(int(n) - len(drawn) / starts) < 6 * (len(drawn) / starts) ** 0.5 for n in counts)
    assert set(episode.tolist()) == {0, 1, 3}


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=30),
    st.integers(1, 5),
    st.integers(1, 5),
    st.booleans(),
    st.sampled_from(["uniform", "episode"]),
    st.integers(0, 5),
)
def test_what_stands_behind_an_end_is_padded_and_masked(lengths, horizon, td_steps, past_ends, draw, seed):
    """Any lengths, any wrap-around: valid steps are neighbours of one episode, behind its last one all is padding."""
    buffer = replay(30, horizon, seed, td_steps=td_steps, draw=draw, past_ends=past_ends)
    for number, steps in enumerate(lengths):
        buffer.add(numbered_episode(number, steps, terminated=number % 2 == 0))
    if buffer.sequences == 0:
        return
    batch = buffer.sample(64)
    window = horizon + td_steps - 1
    assert batch.rewards.shape == (window, 64)
    assert (batch.valid is None) == (not past_ends and td_steps == 1) or horizon == 1
    valid = torch.ones(window, 64) if batch.valid is None else batch.valid
    for b in range(64):
        first = batch.observations[0, b, 0].item()
        number, start = int(first // 1000), int(first % 1000)
        count = min(window, lengths[number] - start)
        assert valid[:, b].tolist() == [1.0] * count + [0.0] * (window - count)
        assert count >= (1 if past_ends else horizon)
        steps = [1000 * number + min(start + t, lengths[number]) for t in range(window + 1)]
        assert batch.observations[:, b, 0].tolist() == steps
        assert batch.actions[:, b, 0].tolist() == [-s for s in steps[:count]] + [0.0] * (window - count)
        assert batch.rewards[:, b].tolist() == [float(start + t) for t in range(count)] + [0.0] * (window - count)
        ended = [float(start + t + 1 == lengths[number] and t < count) for t in range(window)]
        terminated = number % 2 == 0
        assert batch.terminated[:, b].tolist() == [e * terminated for e in ended]
        assert batch.truncated[:, b].tolist() == [e * (not terminated) for e in ended]


def test_ends_are_met_at_every_depth_and_short_episodes_are_learned_from():
    plain, past = replay(100, 3), replay(100, 3, past_ends=True)
    for buffer in (plain, past):
        for number, steps in enumerate([2, 9]):
            buffer.add(numbered_episode(number, steps, terminated=True))
    assert plain.sample(2000).terminated.sum(1).gt(0).tolist() == [False, False, True]
    found = past.sample(11_000).terminated.sum(1)
    # each of 11 starts 1,000 times: the end of both episodes first and second, that of the longer one third
    assert all(abs(n - expected) < 250 for n, expected in zip(found.tolist(), [2000, 2000, 1000], strict=True))
    assert (plain.sequences, past.sequences) == (7, 11)
    assert (plain.episodes_too_short, past.episodes_too_short) == (1, 0)
    assert plain.ages()["diag/never_sampled"] == 0.5
    assert past.ages()["diag/never_sampled"] == 0.0


def planned_episode(number, steps):
    """Half of it at random, the other half planned with numbers that tell where they come from."""
    random = np.arange(steps) % 2 == 0
    mean = np.where(random[:, None], 0, 0.25 + np.arange(steps)[:, None] / 16).astype(np.float16).repeat(2, 1)
    return dataclasses.replace(
        numbered_episode(number, steps), plans=Plans(random, mean, (mean / 2).astype(np.float16))
    )


def test_plans_are_kept_beside_the_actions_and_survive_saving():
    buffer = replay(60, 3, plans=True, past_ends=True)
    for number in range(5):
        buffer.add(planned_episode(number, 7 + number))
    other = replay(60, 3, seed=9, plans=True, past_ends=True)
    other.load_state_dict(buffer.state_dict())
    for one in (buffer, other):
        batch = one.sample(200)
        step = batch.rewards
        wanted = (step % 2 == 0).float() * batch.valid
        assert torch.equal(batch.random, wanted)
        mean = torch.where((batch.valid > 0) & (wanted == 0), 0.25 + step / 16, torch.zeros_like(step))
        assert torch.equal(batch.plan_mean, mean.unsqueeze(-1).expand(-1, -1, 2))
        assert torch.equal(batch.plan_std, (mean / 2).unsqueeze(-1).expand(-1, -1, 2))
    smaller = replay(40, 3, plans=True)
    smaller.load_state_dict(buffer.state_dict())
    assert smaller.sample(200).plan_mean.max() > 0.25


def test_steps_that_nothing_is_known_of_count_as_random():
    """A checkpoint from before plans were kept, and the other way round one whose plans nobody asks for any more."""
    old = replay(60)
    old.add(numbered_episode(0, 9))
    new = replay(60, plans=True)
    new.load_state_dict(old.state_dict())
    assert new.sample(50).random.min() == 1
    new.add(planned_episode(1, 9))
    assert new.sample(200).random.min() == 0
    back = replay(60)
    back.load_state_dict(new.state_dict())
    assert back.sample(50).random is None


def test_termination_and_truncation_are_kept_apart():
    buffer = replay()
    buffer.add(numbered_episode(0, 3, terminated=True))
    buffer.add(numbered_episode(1, 3, terminated=False))
    batch = buffer.sample(200)
    episode = (batch.observations[0, :, 0] >= 1000).long()
    for b in range(200):
        assert batch.terminated[:, b].tolist() == ([0, 0, 1] if episode[b] == 0 else [0, 0, 0])
        assert batch.truncated[:, b].tolist() == ([0, 0, 0] if episode[b] == 0 else [0, 0, 1])


def test_oldest_episodes_leave_first():
    buffer = replay(capacity=25, horizon=3)
    for number in range(6):
        buffer.add(numbered_episode(number, 5))  # 6 slots each: four fit
    episode, _ = check_batch(buffer.sample(500), 3)
    assert set(episode.tolist()) == {2, 3, 4, 5}
    assert buffer.episodes == 4
    assert buffer.episodes_added == 6


def test_clear_errors():
    with pytest.raises(ConfigError, match="does not hold one sub-sequence"):
        replay(capacity=3, horizon=3)
    buffer = replay(capacity=10)
    with pytest.raises(ConfigError, match=r"episode of 10 steps does not fit a replay of 10 slots"):
        buffer.add(numbered_episode(0, 10))
    with pytest.raises(ConfigError, match=r"observations has shape \(4, 7\), expected \(4, 5\)"):
        buffer.add(numbered_episode(0, 3, dims=(7, 2)))
    with pytest.raises(ConfigError, match="none of at least 3 steps"):
        buffer.sample(2)


def test_same_seed_same_draws_and_state_goes_on():
    one, two = replay(seed=3), replay(seed=3)
    for buffer in (one, two):
        for number in range(4):
            buffer.add(numbered_episode(number, 9))
    assert torch.equal(one.sample(50).observations, two.sample(50).observations)
    three = replay(seed=99)
    three.load_state_dict(one.state_dict())
    for _ in range(2):
        assert torch.equal(one.sample(50).observations, three.sample(50).observations)
        for buffer in (one, three):
            buffer.add(numbered_episode(7, 30))  # wraps around
    assert three.episodes_added == one.episodes_added


def test_state_fits_a_replay_of_another_capacity():
    small = replay(capacity=30, seed=1)
    for number in range(6):
        small.add(numbered_episode(number, 7))
    large = replay(capacity=200)
    large.load_state_dict(small.state_dict())
    assert large.episodes == small.episodes == 3
    large.add(numbered_episode(9, 50))
    episode, _ = check_batch(large.sample(500), 3)
    assert set(episode.tolist()) == {3, 4, 5, 9}
    other = Replay(capacity=30, observation_dim=6, action_dim=2, horizon=3, device=CPU)
    with pytest.raises(CheckpointError, match=r"\(5, 2\), the spec asks for \(6, 2\)"):
        other.load_state_dict(small.state_dict())


def test_placement_says_where_and_why():
    cuda = torch.device("cuda", 0)
    needed = replay_bytes(1_000_000, 18, 4)
    assert needed == 1_000_000 * (23 * 4 + 2)
    fits = choose_placement(cuda, needed, 10 * 2**30)
    assert fits.device == cuda
    assert "89.6 MiB on cuda:0" in fits.reason
    small = choose_placement(cuda, needed, 100 * 2**20)
    assert small.device == CPU
    assert "more than 50% of the 100.0 MiB free on cuda:0" in small.reason
    assert choose_placement(cuda, needed, 10 * 2**30, host_only=True).device == CPU
    assert choose_placement(CPU, needed, None).device == CPU


def test_batch_lands_on_the_training_device_from_host_memory():
    """The host-memory path of a GPU run, taken on the CPU through the same code."""
    buffer = Replay(capacity=50, observation_dim=5, action_dim=2, horizon=3, device=CPU, host_only=True)
    buffer.add(numbered_episode(0, 10))
    batch = buffer.sample(4)
    assert batch.observations.device == CPU
    assert batch.observations.shape == (4, 4, 5)
    assert batch.terminated.dtype == torch.float32


def test_stored_values_are_copies():
    buffer = replay()
    episode = numbered_episode(0, 4)
    buffer.add(episode)
    episode.observations[:] = np.nan
    assert buffer.sample(10).observations.isfinite().all()


def test_a_saved_state_is_as_large_as_what_it_holds():
    buffer = Replay(capacity=100_000, observation_dim=18, action_dim=4, horizon=3, device=CPU)
    buffer.add(numbered_episode(0, 10, dims=(18, 4)))
    saved = io.BytesIO()
    torch.save(buffer.state_dict(), saved)
    assert saved.tell() < 20_000
