from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from sample_envs import Counting, Faulty

from tdmpc_lab.config.schema import EnvConfig
from tdmpc_lab.envs import ControlEnv, make_env
from tdmpc_lab.errors import TrainingError

Transition = tuple[list[float], float, bool, bool]


def run(env: ControlEnv, seed: int, steps: int) -> list[Transition]:
    """`steps` steps of one episode with actions that depend on the seed only."""
    rng = np.random.default_rng(seed)
    rows: list[Transition] = [(env.reset(seed).tolist(), 0.0, False, False)]
    for _ in range(steps):
        obs, reward, terminated, truncated, _ = env.step(rng.uniform(-1, 1, env.action_dim).astype(np.float32))
        rows.append((obs.tolist(), reward, terminated, truncated))
        if terminated or truncated:
            break
    return rows


def zeros(env: ControlEnv) -> Any:
    return np.zeros(env.action_dim, np.float32)


@pytest.mark.parametrize(
    ("env_id", "options"),
    [
        ("Pendulum-v1", {}),
        ("BipedalWalker-v3", {}),
        ("BipedalWalker-v3", {"hardcore": True}),
        ("LunarLander-v3", {"continuous": True, "enable_wind": True}),
    ],
)
def test_an_episode_depends_on_nothing_but_its_seed(env_id: str, options: dict[str, Any]) -> None:
    """BipedalWalker-v3 alone fails this after most histories."""
    config = EnvConfig(id=env_id, options=options)
    used = make_env(config)
    for seed in range(6):
        run(used, 1000 + seed, 40 + 9 * seed)
        assert run(used, seed, 150) == run(make_env(config), seed, 150)
    assert run(used, 1, 150) != run(used, 2, 150)


def test_an_observation_is_a_copy(register: Any) -> None:
    class Reusing(Counting):
        buffer = np.zeros(3)

        def observe(self, action: float) -> Any:
            self.buffer[0] = self.steps
            return self.buffer

    env = make_env(register(Reusing))
    first = env.reset(0)
    second = env.step(zeros(env)).obs
    env.step(zeros(env))
    assert first[0] == 0.0 and second[0] == 1.0


def test_actions_outside_the_range_are_clipped(register: Any) -> None:
    env = make_env(register(Counting, low=-3.0, high=5.0))
    env.reset(0)
    received = [env.step(np.array([action], np.float32)).obs[1] for action in (-7.0, -1.0, 0.0, 1.0, 40.0)]
    assert received == [-3.0, -3.0, 1.0, 5.0, 5.0]


def test_the_info_of_the_environment_is_passed_on(register: Any) -> None:
    env = make_env(register(Counting))
    env.reset(0)
    assert env.step(zeros(env)).info == {"steps": 1}


def test_a_time_limit_truncates_and_does_not_terminate(register: Any) -> None:
    env = make_env(register(Counting, limit=3))
    assert [row[2:] for row in run(env, 0, 10)] == [(False, False)] * 3 + [(False, True)]


def test_an_end_of_the_task_terminates(register: Any) -> None:
    env = make_env(register(Faulty, fault="ends"))
    assert [row[2:] for row in run(env, 0, 10)] == [(False, False)] * 3 + [(True, False)]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("nan reward", "the reward is nan"),
        ("nan observation", "entry 2 of the observation is nan"),
        ("observation too large", "entry 0 of the observation is inf"),
        ("short observation", "the observation has 2 numbers"),
        ("step raises", "ZeroDivisionError: the pole has no length"),
        ("no reward", "the reward is None; one number is needed"),
    ],
)
def test_a_fault_in_a_step_names_environment_step_and_seed(register: Any, fault: str, expected: str) -> None:
    env = make_env(register(Faulty, fault=fault))
    env.reset(42)
    env.step(zeros(env))
    env.step(zeros(env))
    with pytest.raises(TrainingError, match=expected) as caught:
        env.step(zeros(env))
    assert "'Sample-v0', step 3 of the episode with seed 42" in str(caught.value)
    if fault == "step raises":
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
    with pytest.raises(TrainingError, match="call reset first"):  # a broken episode does not continue
        env.step(zeros(env))
    assert env.reset(43).shape == (3,)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("reset raises", "reset raised RuntimeError: no world today"),
        ("reset gives inf", "entry 1 of the observation is inf"),
    ],
)
def test_a_fault_in_reset_names_environment_and_seed(register: Any, fault: str, expected: str) -> None:
    env = make_env(register(Faulty, fault=fault))
    with pytest.raises(TrainingError, match=expected) as caught:
        env.reset(9)
    assert "'Sample-v0'" in str(caught.value) and "seed 9" in str(caught.value)


def test_a_reward_may_be_any_single_number(register: Any) -> None:
    class Rewarding(Counting):
        def step(self, action: Any) -> Any:
            obs, _, *rest = super().step(action)
            return obs, [3, np.float32(0.5), np.array([2.0])][self.steps - 1], *rest

    env = make_env(register(Rewarding))
    env.reset(0)
    rewards = [env.step(zeros(env)).reward for _ in range(3)]
    assert rewards == [3.0, 0.5, 2.0] and all(type(reward) is float for reward in rewards)


def test_a_step_needs_a_running_episode(register: Any) -> None:
    env = make_env(register(Counting, limit=1))
    with pytest.raises(TrainingError, match="'Sample-v0': step without a running episode"):
        env.step(zeros(env))
    env.reset(0)
    assert env.step(zeros(env)).truncated
    with pytest.raises(TrainingError, match="call reset first"):
        env.step(zeros(env))


@pytest.mark.parametrize("action", [np.array([np.nan], np.float32), np.zeros(2, np.float32), np.float32(0)])
def test_an_action_that_makes_no_sense_is_refused(register: Any, action: Any) -> None:
    env = make_env(register(Counting))
    env.reset(0)
    with pytest.raises(TrainingError, match=r"step 1 of the episode with seed 0: (the|an) action"):
        env.step(np.asarray(action))


def test_every_environment_that_was_built_is_closed(register: Any) -> None:
    open_envs: set[gymnasium.Env[Any, Any]] = set()

    class Tracked(Counting):
        def __init__(self) -> None:
            super().__init__()
            open_envs.add(self)

        def close(self) -> None:
            open_envs.remove(self)

    env = make_env(register(Tracked))
    for seed in range(4):
        env.reset(seed)
        assert len(open_envs) == 1
    env.close()
    env.close()
    assert not open_envs
    env.reset(5)  # closing frees, it does not forbid
    assert len(open_envs) == 1
    env.close()
