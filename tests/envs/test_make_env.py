from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from sample_envs import Counting, DictObservation, Unbuildable, WithSpaces

from tdmpc_lab.config.schema import EnvConfig
from tdmpc_lab.envs import ControlEnv, make_env
from tdmpc_lab.errors import EnvironmentSpecError


def refusal(config: EnvConfig) -> str:
    with pytest.raises(EnvironmentSpecError) as caught:
        make_env(config)
    return str(caught.value)


@pytest.fixture
def importable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on sys.path; what is imported from it is forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.mark.parametrize(
    ("env_id", "options", "observation", "action", "length"),
    [
        ("Pendulum-v1", {}, 3, 1, 200),
        ("BipedalWalker-v3", {}, 24, 4, 1600),
        ("LunarLander-v3", {"continuous": True}, 8, 2, 1000),
        ("gymnasium.envs.classic_control:Pendulum-v1", {"g": 9.81}, 3, 1, 200),
    ],
)
def test_real_environments(env_id: str, options: dict[str, Any], observation: int, action: int, length: int) -> None:
    env = make_env(EnvConfig(id=env_id, options=options))
    assert (env.observation_dim, env.action_dim, env.episode_length) == (observation, action, length)
    obs = env.reset(7)
    assert obs.shape == (observation,) and obs.dtype == np.float32
    result = env.step(np.zeros(action, np.float32))
    assert result.obs.shape == (observation,) and result.obs.dtype == np.float32
    assert type(result.reward) is float and not result.terminated and not result.truncated
    env.close()


def test_the_full_range_of_actions_reaches_the_environment() -> None:
    """Pendulum's torque is ±2; its reward holds −0.001 · torque², so three actions tell the torque."""
    env = make_env(EnvConfig(id="Pendulum-v1"))

    def reward(action: float) -> float:
        env.reset(3)
        return env.step(np.array([action], np.float32)).reward

    assert reward(0.0) - reward(1.0) == pytest.approx(0.001 * 2.0**2, abs=1e-9)
    assert reward(0.0) - reward(0.5) == pytest.approx(0.001 * 1.0**2, abs=1e-9)


def test_the_spec_overrides_the_registered_time_limit() -> None:
    env = make_env(EnvConfig(id="Pendulum-v1", max_episode_steps=5))
    assert env.episode_length == 5
    env.reset(0)
    ends = [env.step(np.zeros(1, np.float32))[2:4] for _ in range(5)]
    assert ends == [(False, False)] * 4 + [(False, True)]


def test_the_shortest_of_several_limits_is_the_episode_length(registry: Any) -> None:
    gymnasium.register(
        "Inner-v0",
        entry_point=lambda: gymnasium.wrappers.TimeLimit(Counting(), 7),
        max_episode_steps=50,
    )
    assert make_env(EnvConfig(id="Inner-v0")).episode_length == 7


def test_without_any_time_limit_the_remedy_is_named(register: Any) -> None:
    config = register(Counting, limit=None)
    assert "set env.max_episode_steps" in refusal(config)
    assert make_env(EnvConfig(id=config.id, max_episode_steps=30)).episode_length == 30


def test_discrete_lunar_lander_is_told_its_own_remedy() -> None:
    text = refusal(EnvConfig(id="LunarLander-v3"))
    assert "LunarLander-v3" in text and "Discrete(4)" in text and "env.options.continuous: true" in text


def test_a_discrete_environment_without_that_option_is_told_of_others() -> None:
    text = refusal(EnvConfig(id="CartPole-v1"))
    assert "CartPole-v1" in text and "Discrete(2)" in text and "Pendulum-v1" in text
    assert "Set env.options.continuous" not in text


def test_an_image_observation_is_refused(register: Any) -> None:
    config = register(WithSpaces, observation=spaces.Box(0, 255, (64, 64, 3), np.uint8))
    assert "images are not supported" in refusal(config)


def test_a_refused_environment_is_closed(register: Any) -> None:
    closed = []

    class Image(WithSpaces):
        def close(self) -> None:
            closed.append(True)

    refusal(register(Image, observation=spaces.Discrete(3)))
    assert closed == [True]


def test_a_dict_is_flattened_in_the_order_of_its_space(register: Any) -> None:
    env = make_env(register(DictObservation))
    order = list(DictObservation().observation_space.keys())
    parts = {"a": [0.5, 7.0], "b": [0.0, 1.0, 2.0, 3.0]}
    expected = [number for key in order for number in parts[key]]
    assert env.observation_dim == 6
    np.testing.assert_array_equal(env.reset(0), np.array(expected, np.float32))
    np.testing.assert_array_equal(env.step(np.zeros(1, np.float32)).obs, np.array(expected, np.float32))


def test_an_unknown_id_names_the_nearest() -> None:
    assert "did you mean 'Pendulum-v1'" in refusal(EnvConfig(id="Pendullum-v1"))
    assert "did you mean 'Pendulum-v1'" in refusal(EnvConfig(id="pendulum-v1"))
    assert "'LunarLander-v3'" in refusal(EnvConfig(id="LunarLander-v1", options={"continuous": True}))
    assert "'BipedalWalker-v3'" in refusal(EnvConfig(id="BipedalWalker-v9"))


def test_an_id_like_no_other_says_where_ids_come_from() -> None:
    text = refusal(EnvConfig(id="Football-One-v0"))
    assert "'Football-One-v0'" in text and "pprint_registry" in text and "package:Football-One-v0" in text


@pytest.mark.parametrize("env_id", ["a:b:C-v0", "module:", ":Pendulum-v1", "not a module:X-v0", "Pendulum v1", ""])
def test_a_malformed_id_is_refused(env_id: str) -> None:
    assert f"'{env_id}'" in refusal(EnvConfig(id=env_id))


def test_a_module_of_the_person_registers_its_environment(importable: Path) -> None:
    (importable / "my_robot.py").write_text(
        "import gymnasium, numpy as np\n"
        "from gymnasium import spaces\n"
        "class Robot(gymnasium.Env):\n"
        "    observation_space = spaces.Box(-1, 1, (2,))\n"
        "    action_space = spaces.Box(0, 10, (1,))\n"
        "    def reset(self, *, seed=None, options=None):\n"
        "        super().reset(seed=seed)\n"
        "        return self.np_random.uniform(-1, 1, 2).astype('f4'), {}\n"
        "    def step(self, action):\n"
        "        return np.zeros(2, 'f4'), action[0], False, False, {}\n"
        "gymnasium.register('Robot-v0', entry_point=Robot, max_episode_steps=40)\n"
    )
    env: ControlEnv = make_env(EnvConfig(id="my_robot:Robot-v0"))
    assert (env.observation_dim, env.action_dim, env.episode_length) == (2, 1, 40)
    env.reset(0)
    assert env.step(np.array([0.5], np.float32)).reward == 7.5
    assert "did you mean 'Robot-v0'" in refusal(EnvConfig(id="my_robot:Robott-v0"))


def test_a_missing_module_is_named(importable: Path) -> None:
    text = refusal(EnvConfig(id="no_such_robots.arm:Arm-v0"))
    assert "'no_such_robots.arm'" in text and "must be importable" in text and "PYTHONPATH" in text


def test_a_module_that_fails_is_told_apart_from_a_missing_one(importable: Path) -> None:
    (importable / "half_robot.py").write_text("import no_such_dependency\n")
    text = refusal(EnvConfig(id="half_robot:Arm-v0"))
    assert "'half_robot'" in text and "no_such_dependency" in text and "PYTHONPATH" not in text
    (importable / "broken_robot.py").write_text("def\n")
    assert "SyntaxError" in refusal(EnvConfig(id="broken_robot:Arm-v0"))


def test_wrong_options_name_those_that_exist() -> None:
    text = refusal(EnvConfig(id="LunarLander-v3", options={"continous": True}))
    assert "continous" in text and "did you mean 'continuous'?" in text
    assert "gravity" in text and "enable_wind" in text


def test_a_missing_option_is_named(register: Any) -> None:
    class Needy(Counting):
        def __init__(self, robot: str) -> None:
            super().__init__()

    text = refusal(register(Needy))
    assert "missing 1 required positional argument: 'robot'" in text and "Sample-v0" in text


@pytest.mark.parametrize("option", ["max_episode_steps", "id", "disable_env_checker"])
def test_options_that_gymnasium_takes_itself_are_refused(option: str) -> None:
    text = refusal(EnvConfig(id="Pendulum-v1", options={option: 3}))
    assert f"env.options.{option}" in text


def test_an_option_of_the_wrong_value_shows_the_constructors_own_words() -> None:
    text = refusal(EnvConfig(id="LunarLander-v3", options={"continuous": True, "gravity": 5.0}))
    assert "LunarLander-v3" in text and "gravity" in text and "AssertionError" in text


def test_a_constructor_that_raises_is_shown_by_its_last_line(register: Any) -> None:
    with pytest.raises(EnvironmentSpecError, match=r"OSError: no such robot: /dev/robot7$") as caught:
        make_env(register(Unbuildable))
    assert "first line" not in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)


def test_a_missing_package_of_gymnasium_is_told_with_its_remedy(register: Any) -> None:
    class Mujoco(Counting):
        def __init__(self) -> None:
            raise gymnasium.error.DependencyNotInstalled("mujoco is not installed, run `pip install mujoco`")

    text = refusal(register(Mujoco))
    assert "needs a package" in text and "pip install mujoco" in text


def test_options_are_copied_for_the_environment(register: Any) -> None:
    class Greedy(Counting):
        def __init__(self, *, weights: dict[str, float]) -> None:
            super().__init__()
            weights.clear()

    config = register(Greedy, weights={"weak": 0.5})
    env = make_env(config)
    env.reset(0)
    env.reset(1)
    assert config.options == {"weights": {"weak": 0.5}}


def test_warnings_of_gymnasium_reach_the_person_once_and_stop_nothing(
    registry: Any, caplog: pytest.LogCaptureFixture
) -> None:
    gymnasium.register("Aged-v1", entry_point=Counting, max_episode_steps=5)
    gymnasium.register("Aged-v2", entry_point=Counting, max_episode_steps=5)
    with caplog.at_level(logging.WARNING), warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            env = make_env(EnvConfig(id="Aged-v1"))
            env.reset(0)
            env.reset(1)
    messages = [record.getMessage() for record in caplog.records if "out of date" in record.getMessage()]
    assert len(messages) == 1
    assert messages[0].startswith("The environment Aged-v1 is out of date") and "`v2`" in messages[0]


def test_an_id_without_a_version_is_the_newest_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert make_env(EnvConfig(id="Pendulum")).episode_length == 200
    assert "Pendulum-v1" in caplog.text
