"""Tasks of the DeepMind Control Suite, with the real physics."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from tdmpc_lab.config.schema import EnvConfig
from tdmpc_lab.envs import ControlEnv, StepResult, dmc, make_env
from tdmpc_lab.errors import EnvironmentSpecError

assert dmc.NAME  # importing it registers with gymnasium, before a fixture remembers what is there
SIZES = {  # observation, action
    "cartpole-swingup": (5, 1),
    "cup-catch": (8, 2),
    "walker-walk": (24, 6),
    "finger-spin": (9, 2),
    "reacher-easy": (6, 2),
    "cheetah-run": (17, 6),
}


def make(task: str, **options: Any) -> ControlEnv:
    return make_env(EnvConfig(id=f"dmc:{task}", options=options))


def actions(dim: int, count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(3).uniform(-1, 1, (count, dim)).astype(np.float32)


@pytest.mark.parametrize("task", SIZES)
def test_the_tasks_of_the_published_figures(task: str) -> None:
    env = make(task)
    assert (env.observation_dim, env.action_dim) == SIZES[task]
    assert env.episode_length == 500  # 1,000 steps of the suite, two by two
    assert env.reset(1).shape == (SIZES[task][0],)
    env.close()


def test_an_action_is_repeated_and_the_rewards_are_added_up() -> None:
    """Against the suite itself, stepped by hand."""
    from dm_control import suite

    env = make("walker-walk")
    theirs = suite.load("walker", "walk")
    theirs.task.random.seed(11)
    moment = theirs.reset()
    flat = [np.asarray(part, np.float32).reshape(-1) for part in moment.observation.values()]
    np.testing.assert_array_equal(env.reset(11), np.concatenate(flat))
    for action in actions(6, 20):
        result = env.step(action)
        rewards = []
        for _repeat in range(2):
            moment = theirs.step(action)
            rewards.append(moment.reward)
        flat = [np.asarray(part, np.float32).reshape(-1) for part in moment.observation.values()]
        np.testing.assert_array_equal(result.obs, np.concatenate(flat))
        assert result.reward == sum(rewards)


def test_the_time_limit_is_a_truncation() -> None:
    env = make("cartpole-swingup", action_repeat=3)
    env.reset(1)
    assert env.episode_length == 334
    results: list[StepResult] = [env.step(np.zeros(1, np.float32)) for _ in range(334)]
    assert [r.truncated for r in results] == [False] * 333 + [True]
    assert not any(r.terminated for r in results)


def test_an_episode_depends_on_its_seed_alone() -> None:
    env = make("finger-spin")

    def episode(seed: int) -> list[float]:
        first = env.reset(seed)
        return [*first, *(x for action in actions(2, 30) for x in env.step(action).obs)]

    first = episode(5)
    assert episode(6) != first
    assert episode(5) == first


def test_a_picture() -> None:
    env = make_env(EnvConfig(id="dmc:walker-walk"), render_mode="rgb_array")
    env.reset(1)
    picture = env.render()
    assert env.frames_per_second == 20
    if picture is None:
        pytest.skip("this machine can't draw without a screen (no EGL)")
    assert picture.shape == (240, 320, 3) and picture.std() > 5
    env.close()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (EnvConfig(id="dmc:walker-wlk"), "did you mean dmc:walker-walk"),
        (EnvConfig(id="dmc:"), "there are acrobot-swingup, "),
        (EnvConfig(id="dmc:cup-catch", options={"action_repeat": 0}), "a whole number from 1 to 100, not 0"),
        (EnvConfig(id="dmc:cup-catch", options={"task": "x"}), "it is part of the id"),
        (EnvConfig(id="dmc:cup-catch", options={"repeat": 2}), "It takes: task, action_repeat"),
        (EnvConfig(id="dmc:cup-catch", opponent="weak"), "env.opponent is for laser hockey"),
    ],
)
def test_what_is_wrong_is_said(config: EnvConfig, message: str) -> None:
    with pytest.raises(EnvironmentSpecError) as caught:
        make_env(config)
    assert message in str(caught.value)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "dm_control"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "dm_control", None)  # so that importing it fails as if it were not there
    with pytest.raises(EnvironmentSpecError, match=r"needs a package that is not installed: .*tdmpc-lab\[dmc\]"):
        make("walker-walk")


_DRAW = """
from tdmpc_lab.config.schema import EnvConfig
from tdmpc_lab.envs import make_env
for _ in range(3):
    env = make_env(EnvConfig(id="dmc:cartpole-swingup"), render_mode="rgb_array")
    env.reset(1)
    picture = env.render()
    env.close()
print("no picture" if picture is None else picture.shape)
"""


@pytest.mark.parametrize("wanted", ["glfw", "osmesa"])
def test_without_a_display_no_way_to_draw_ends_the_process(wanted: str) -> None:
    environ = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    done = subprocess.run(
        [sys.executable, "-c", _DRAW],
        env={**environ, "MUJOCO_GL": wanted}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("(240, 320, 3)", "no picture")
