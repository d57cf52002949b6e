from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sample_envs import Counting

from tdmpc_lab.config.schema import EnvConfig
from tdmpc_lab.envs import ControlEnv, EnvGroup, EpisodeSetting, make_env, training_seed
from tdmpc_lab.errors import CheckpointError, TrainingError


def group(config: EnvConfig, count: int = 3, seed: int = 1) -> EnvGroup:
    return EnvGroup(lambda setting: make_env(config), count, seed)


def play(envs: EnvGroup, rng: np.random.Generator, steps: int) -> list[Any]:
    """Random steps; an environment whose episode ended is reset. Returns all that came back."""
    rows: list[Any] = []
    for _ in range(steps):
        actions = rng.uniform(-1, 1, (len(envs), envs.action_dim)).astype(np.float32)
        for index, result in enumerate(envs.step(actions)):
            rows.append((result.obs.tolist(), result.reward, result.terminated, result.truncated))
            if result.terminated or result.truncated:
                rows.append(envs.reset_one(index).tolist())
    return rows


def test_shapes_and_seeds() -> None:
    envs = group(EnvConfig(id="Pendulum-v1"), count=2, seed=7)
    assert (len(envs), envs.observation_dim, envs.action_dim, envs.episode_length) == (2, 3, 1, 200)
    assert [envs.episode_index(0), envs.episode_index(1)] == [-1, -1]
    obs = envs.reset_all()
    assert obs.shape == (2, 3) and obs.dtype == np.float32
    assert not np.array_equal(obs[0], obs[1])
    assert [envs.episode_seed(0), envs.episode_seed(1)] == [training_seed(7, 0, 0), training_seed(7, 1, 0)]
    again = envs.reset_one(1)
    assert (envs.episode_index(0), envs.episode_index(1)) == (0, 1)
    assert envs.episode_seed(1) == training_seed(7, 1, 1)
    np.testing.assert_array_equal(envs.observations, np.stack([obs[0], again]))


def test_a_step_of_the_first_k_leaves_the_others_alone() -> None:
    envs = group(EnvConfig(id="Pendulum-v1"))
    before = envs.reset_all()
    results = envs.step(np.ones((2, 1), np.float32))
    assert len(results) == 2
    np.testing.assert_array_equal(envs.observations[:2], [result.obs for result in results])
    np.testing.assert_array_equal(envs.observations[2], before[2])
    assert not np.array_equal(envs.observations[0], before[0])


@pytest.mark.parametrize("shape", [(4, 1), (1,), (2, 1, 1)])
def test_actions_for_too_many_environments_are_refused(shape: tuple[int, ...]) -> None:
    envs = group(EnvConfig(id="Pendulum-v1"))
    envs.reset_all()
    with pytest.raises(TrainingError, match=r"k ≤ 3"):
        envs.step(np.zeros(shape, np.float32))


def test_the_observations_are_copies() -> None:
    envs = group(EnvConfig(id="Pendulum-v1"))
    envs.reset_all()[:] = 99.0
    envs.observations[:] = 99.0
    envs.reset_one(0)[:] = 99.0
    assert not (envs.observations == 99.0).any()


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "BipedalWalker-v3"])
def test_two_groups_of_one_seed_are_the_same(env_id: str) -> None:
    config = EnvConfig(id=env_id, max_episode_steps=30)
    first, second, other = group(config), group(config), group(config, seed=2)
    np.testing.assert_array_equal(first.reset_all(), second.reset_all())
    other.reset_all()
    rows = play(first, np.random.default_rng(0), 70)
    assert rows == play(second, np.random.default_rng(0), 70)
    assert rows != play(other, np.random.default_rng(0), 70)


def test_an_environment_does_not_notice_how_many_others_there_are() -> None:
    config = EnvConfig(id="BipedalWalker-v3")
    alone, many = group(config, count=1), group(config, count=4)
    alone.reset_all()
    many.reset_all()
    many.reset_one(1)  # another one's extra reset
    for step in range(50):
        actions = np.random.default_rng(step).uniform(-1, 1, (4, 4)).astype(np.float32)
        np.testing.assert_array_equal(alone.step(actions[:1])[0].obs, many.step(actions)[0].obs)


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "BipedalWalker-v3"])
def test_a_group_goes_on_bit_for_bit_where_it_was_saved(env_id: str) -> None:
    config = EnvConfig(id=env_id, max_episode_steps=60)
    original = group(config)
    original.reset_all()
    rng = np.random.default_rng(3)
    play(original, rng, 100)  # in the middle of the second episode
    original.reset_one(2)
    play(original, rng, 7)
    state = copy.deepcopy(original.state_dict())
    rng_state = copy.deepcopy(rng)
    expected = play(original, rng, 130)

    restored = group(config)
    assert restored.load_state_dict(state) == []
    saved_obs = [saved["observation"] for saved in state["envs"]]
    np.testing.assert_array_equal(restored.observations, saved_obs)
    assert play(restored, rng_state, 130) == expected
    assert restored.state_dict()["envs"][0]["episode"] == original.state_dict()["envs"][0]["episode"]

    used = group(config)  # also into a group that is somewhere else
    used.reset_all()
    play(used, np.random.default_rng(8), 50)
    assert used.load_state_dict(state) == []
    np.testing.assert_array_equal(used.observations, saved_obs)


def test_a_state_is_of_plain_parts_and_does_not_change_afterwards() -> None:
    envs = group(EnvConfig(id="Pendulum-v1"), count=1)
    envs.reset_all()
    envs.step(np.full((1, 1), 0.25, np.float32))
    state = envs.state_dict()
    saved = copy.deepcopy(state)
    envs.step(np.zeros((1, 1), np.float32))
    assert set(state) == {"seed", "envs"} and set(state["envs"][0]) == {
        "episode",
        "setting",
        "actions",
        "observation",
    }
    np.testing.assert_array_equal(state["envs"][0]["actions"], np.full((1, 1), 0.25, np.float32))
    np.testing.assert_array_equal(state["envs"][0]["observation"], saved["envs"][0]["observation"])


def test_a_state_before_the_first_reset_comes_back_as_that() -> None:
    config = EnvConfig(id="Pendulum-v1")
    state = group(config).state_dict()
    envs = group(config)
    first = envs.reset_all()
    assert envs.load_state_dict(state) == []
    assert envs.episode_index(0) == -1
    np.testing.assert_array_equal(envs.reset_all(), first)


def test_a_replay_that_differs_starts_the_next_episode() -> None:
    config = EnvConfig(id="Pendulum-v1")
    original = group(config)
    original.reset_all()
    play(original, np.random.default_rng(0), 20)
    state = original.state_dict()
    state["envs"][1]["observation"][0] = np.nextafter(state["envs"][1]["observation"][0], np.float32(2))

    restored = group(config)
    assert restored.load_state_dict(state) == [1]
    assert [restored.episode_index(index) for index in range(3)] == [0, 1, 0]
    fresh = make_env(config).reset(training_seed(1, 1, 1))
    np.testing.assert_array_equal(restored.observations[1], fresh)
    assert restored.state_dict()["envs"][1]["actions"].shape == (0, 1)


def test_a_replay_that_ends_early_starts_the_next_episode(register: Any) -> None:
    config = register(Counting, limit=20)
    original = group(config, count=2)
    original.reset_all()
    play(original, np.random.default_rng(0), 10)
    shorter = group(EnvConfig(id=config.id, max_episode_steps=5), count=2)
    assert shorter.load_state_dict(original.state_dict()) == [0, 1]
    assert shorter.episode_index(0) == 1


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda state: state.update(seed=9), "train.seed is 9 there and 1 here"),
        (lambda state: state["envs"].pop(), "train.envs is 2 there and 3 here"),
        (
            lambda state: state["envs"][0].update(actions=np.zeros((4, 2), np.float32)),
            "action length is 2 there and 1 here",
        ),
        (
            lambda state: state["envs"][1].update(observation=np.zeros(8, np.float32)),
            "observation length is 8 there and 3 here",
        ),
    ],
)
def test_a_state_of_another_group_is_refused(change: Callable[[dict[str, Any]], None], expected: str) -> None:
    config = EnvConfig(id="Pendulum-v1")
    original = group(config)
    original.reset_all()
    state = original.state_dict()
    change(state)
    with pytest.raises(CheckpointError, match=expected):
        group(config).load_state_dict(state)


def test_the_environments_made_so_far_are_closed_when_one_fails(register: Any) -> None:
    closed = []

    class Tracked(Counting):
        def close(self) -> None:
            closed.append(self)

    config = register(Tracked)
    made: list[ControlEnv] = []

    def make(setting: EpisodeSetting) -> ControlEnv:
        if len(made) == 2:
            raise TrainingError("no third one")
        made.append(make_env(config))
        return made[-1]

    with pytest.raises(TrainingError, match="no third one"):
        EnvGroup(make, 3, 1)
    assert len(closed) == 2


def test_close_closes_all(register: Any) -> None:
    closed = []

    class Tracked(Counting):
        def close(self) -> None:
            closed.append(self)

    group(register(Tracked)).close()
    assert len(closed) == 3
