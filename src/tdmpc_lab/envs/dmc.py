"""Tasks of the DeepMind Control Suite as a gymnasium environment: `env.id: dmc:walker-walk` of a spec.

The package dm_control comes with the extra `dmc`. As in the TD-MPC2 paper (arXiv 2310.16828, appendix) an action is
repeated twice, the rewards of the repeats are added up, and the observation is everything that the task shows, in
its order, as one vector.
"""

from __future__ import annotations

import ctypes.util
import difflib
import logging
import math
import os
import sys
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from tdmpc_lab.errors import EnvironmentSpecError

FloatArray = npt.NDArray[np.float32]

PREFIX = "dmc:"
NAME = "tdmpc_lab/DmControl-v0"
_LOG = logging.getLogger(__name__)
_DOMAINS = {"cup": "ball_in_cup", "pointmass": "point_mass"}  # the paper's short names
_PICTURE = (240, 320)  # pixels, height and width
# Values of MUJOCO_GL: which draw in a window of a display, and which without.
_ON_SCREEN = ("", "glfw", "on", "enable", "enabled", "true", "1")
_OFF_SCREEN = ("egl", "osmesa")
_NO_PICTURES = ("disable", "disabled", "off", "false", "0")
_QUADRUPED_CAMERA = 2  # the others show their robot from the side with camera 0


class DmControlEnv(gymnasium.Env[FloatArray, FloatArray]):
    """One task of the suite. An episode is cut off after the suite's 1,000 steps, 500 with two repeats."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012  gymnasium's own way; the rate is each task's

    def __init__(self, task: str, action_repeat: int = 2, render_mode: str | None = None) -> None:
        """`task` is `walker-walk`.

        Raises EnvironmentSpecError for a task that is not there and for values out of range, and gymnasium's
        DependencyNotInstalled without dm_control.
        """
        if not isinstance(action_repeat, int) or isinstance(action_repeat, bool) or not 1 <= action_repeat <= 100:
            raise EnvironmentSpecError(
                f"env.options.action_repeat must be a whole number from 1 to 100, not {action_repeat!r}",
                key="env.options.action_repeat",
            )
        suite = _suite()
        self._domain, name = _find(suite, task)
        self._task = suite.load(self._domain, name)
        self._action_repeat = action_repeat
        self.render_mode = None if _gl() in _NO_PICTURES else render_mode
        frames_per_second = 1.0 / (self._task.control_timestep() * action_repeat)
        self.metadata = {**self.metadata, "render_fps": round(frames_per_second)}
        self.episode_length = _episode_length(self._task, task, action_repeat)
        shown = sum(math.prod(spec.shape) for spec in self._task.observation_spec().values())
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (shown,), np.float32)
        action = self._task.action_spec()
        low, high = (
            np.broadcast_to(bound, action.shape).astype(np.float32) for bound in (action.minimum, action.maximum)
        )
        self.action_space = gymnasium.spaces.Box(low, high, action.shape, np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[FloatArray, dict[str, Any]]:
        """Start an episode; `seed` fixes its start state."""
        super().reset(seed=seed, options=options)
        if seed is not None:
            self._task.task.random.seed(seed)
        return _flat(self._task.reset().observation), {}

    def step(self, action: FloatArray) -> tuple[FloatArray, float, bool, bool, dict[str, Any]]:
        """Repeat the action until the episode ends or it was done `action_repeat` times; rewards are added up."""
        reward = 0.0
        for _ in range(self._action_repeat):
            moment = self._task.step(action)
            reward += float(moment.reward)
            if moment.last():
                break
        # The suite marks the end of the task itself with a discount of 0; its time limit leaves it at 1.
        ended = bool(moment.last() and moment.discount == 0.0)
        return _flat(moment.observation), reward, ended, bool(moment.last() and not ended), {}

    def render(self) -> npt.NDArray[np.uint8]:
        """The picture of this moment, (height, width, 3)."""
        height, width = _PICTURE
        camera = _QUADRUPED_CAMERA if self._domain == "quadruped" else 0
        picture: npt.NDArray[np.uint8] = self._task.physics.render(height, width, camera_id=camera)
        return picture

    def close(self) -> None:
        """Free the simulation and, where pictures were made, their context."""
        self._task.close()


def _suite() -> ModuleType:
    """`dm_control.suite`, with a way to draw that works without a screen."""
    logging.getLogger("absl").setLevel(logging.ERROR)  # remarks of MuJoCo's parser on the suite's own models
    wanted = _gl()
    if wanted in _ON_SCREEN and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        os.environ["MUJOCO_GL"] = "egl" if ctypes.util.find_library("EGL") else "disable"
        if wanted:
            _LOG.warning("MUJOCO_GL=%s draws on a screen, and there is none: %s", wanted, os.environ["MUJOCO_GL"])
    try:
        return _import_suite()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("dm_control", "mujoco"):
            raise
        raise gymnasium.error.DependencyNotInstalled(
            "dm_control, which comes with `pip install 'tdmpc-lab[dmc]'`"
        ) from error
    except (ImportError, RuntimeError, AttributeError) as error:
        # EGL is there but this node lets nobody use it, or the library for OSMesa is not there.
        if _gl() not in _OFF_SCREEN:
            raise
        _LOG.warning("no pictures of dm_control's tasks on this machine (%s)", str(error).strip().partition("\n")[0])
        for name in [name for name in sys.modules if name.partition(".")[0] == "dm_control"]:
            del sys.modules[name]  # half imported
        os.environ["MUJOCO_GL"] = "disable"
        return _import_suite()


def _gl() -> str:
    """How MuJoCo is to draw, as dm_control reads it; empty where that is left to it."""
    return os.environ.get("MUJOCO_GL", "").strip().lower()


def _import_suite() -> ModuleType:
    from dm_control import suite

    return suite  # type: ignore[no-any-return]


def _find(suite: ModuleType, task: str) -> tuple[str, str]:
    """Domain and task of `walker-walk`, as the suite names them."""
    tasks = {_public(domain, name): (domain, name) for domain, name in suite.ALL_TASKS}
    if task in tasks:
        return tasks[task]
    near = difflib.get_close_matches(task, tasks, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(PREFIX + name for name in near)}?" if near else f"there are {', '.join(tasks)}"
    raise EnvironmentSpecError(
        f"env.id '{PREFIX}{task}' is no task of the DeepMind Control Suite: {hint}", key="env.id"
    )


def _public(domain: str, name: str) -> str:
    short = {long: short for short, long in _DOMAINS.items()}
    return f"{short.get(domain, domain)}-{name}".replace("_", "-")


def _episode_length(task: Any, name: str, action_repeat: int) -> int:
    limit = float(task._step_limit)  # nothing public tells it
    if not math.isfinite(limit):
        raise EnvironmentSpecError(
            f"env.id '{PREFIX}{name}' has no time limit in the suite, and the trainer needs one", key="env.id"
        )
    return math.ceil(limit / action_repeat)


def _flat(observation: Any) -> FloatArray:
    return np.concatenate([np.asarray(part, np.float32).reshape(-1) for part in observation.values()])


gymnasium.register(NAME, entry_point="tdmpc_lab.envs.dmc:DmControlEnv")
