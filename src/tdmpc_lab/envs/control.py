"""`ControlEnv`, the environment the trainer knows, and its implementation on top of gymnasium."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from tdmpc_lab.envs.calls import calling
from tdmpc_lab.envs.spaces import ActionScale
from tdmpc_lab.envs.undisturbed import undisturbed
from tdmpc_lab.errors import EnvironmentSpecError, TrainingError

if TYPE_CHECKING:
    import gymnasium

_LOG = logging.getLogger(__name__)
_told: set[str] = set()
FloatArray = npt.NDArray[np.float32]
MirrorSigns = tuple[tuple[float, ...], tuple[float, ...]]
"""Signs, 1 or −1, of observation (O,) and action (A,): with these entries negated the task is the same."""


class ReturnError(Exception):
    """An environment returned what gymnasium's interface does not have; the text says what, and what it should be."""


class StepResult(NamedTuple):
    """What one environment step gave."""

    obs: FloatArray
    """Next observation, (observation_dim,)."""
    reward: float
    """Raw reward of the environment, finite."""
    terminated: bool
    """The task ended by itself (MDP end): nothing is to be had after this state."""
    truncated: bool
    """The episode was cut off (time limit): the state has a value all the same."""
    info: dict[str, Any]
    """The environment's own remarks, as they are."""


class ControlEnv(Protocol):
    """One environment with vector observations and actions in [−1, 1].

    An episode depends on its seed and its actions, and on nothing that happened before it.
    """

    @property
    def observation_dim(self) -> int:
        """Length of an observation."""

    @property
    def action_dim(self) -> int:
        """Length of an action."""

    @property
    def episode_length(self) -> int:
        """Steps T after which an episode is truncated at the latest."""

    @property
    def frames_per_second(self) -> int:
        """Pictures a second that show an episode as quickly as it is."""

    @property
    def mirror_signs(self) -> MirrorSigns | None:
        """The task's mirror symmetry; None where it declares none."""

    def reset(self, seed: int) -> FloatArray:
        """Start the episode of this seed and return its first observation, (observation_dim,).

        Raises TrainingError when the environment raises or the observation is not finite.
        """

    def step(self, action: FloatArray) -> StepResult:
        """Take one step. `action` is (action_dim,); what lies outside [−1, 1] is clipped.

        Raises TrainingError when the environment raises, when the observation or the reward is not finite,
        when the action is not finite or has the wrong shape, and when no episode is running.
        """

    def render(self) -> npt.NDArray[np.uint8] | None:
        """The picture of this moment, (height, width, 3); None where the environment makes none.

        It makes one only when it was made with the render mode `rgb_array`.
        """

    def close(self) -> None:
        """Free what the environment holds; harmless when called twice."""


class GymnasiumEnv:
    """A gymnasium environment as a `ControlEnv`.

    `reset(seed)` is not enough to forget the past: BipedalWalker-v3 keeps its physics world, and the same
    seed gives another episode after another history. Therefore every episode runs in a newly built
    environment, which costs less than one planning step for the environments of gymnasium itself.
    """

    def __init__(
        self,
        name: str,
        build: Callable[[], gymnasium.Env[Any, Any]],
        first: gymnasium.Env[Any, Any],
        *,
        observation_dim: int,
        action_scale: ActionScale,
        episode_length: int,
    ) -> None:
        """`first` is the environment that was built to look at its spaces; it serves the first episode."""
        self.name = name
        self._build = build
        self._env: gymnasium.Env[Any, Any] | None = first
        self._fresh = True
        self._seed = 0
        self._steps: int | None = None  # of the running episode; None when there is none
        self._observation_dim = observation_dim
        self._action_scale = action_scale
        self._episode_length = episode_length

    @property
    def observation_dim(self) -> int:
        """Length of an observation."""
        return self._observation_dim

    @property
    def action_dim(self) -> int:
        """Length of an action."""
        return self._action_scale.dim

    @property
    def episode_length(self) -> int:
        """Steps T after which an episode is truncated at the latest."""
        return self._episode_length

    @property
    def mirror_signs(self) -> MirrorSigns | None:
        """What the environment says in an attribute `mirror_signs`. Raises EnvironmentSpecError if that is not such."""
        declared = None if self._env is None else getattr(self._env.unwrapped, "mirror_signs", None)
        if declared is None:
            return None
        sizes = (self.observation_dim, self.action_dim)
        signs = [tuple(map(float, part)) for part in declared]
        if [len(part) for part in signs] != list(sizes) or any(abs(sign) != 1 for part in signs for sign in part):
            raise EnvironmentSpecError(
                f"mirror_signs of '{self.name}' must be two sequences of 1 and −1, of {sizes[0]} and {sizes[1]} entries"
            )
        return signs[0], signs[1]

    @property
    def frames_per_second(self) -> int:
        """See `ControlEnv.frames_per_second`; 30 for an environment that does not say."""
        metadata = {} if self._env is None else self._env.metadata
        return int(metadata.get("render_fps") or 30)

    def reset(self, seed: int) -> FloatArray:
        """See `ControlEnv.reset`."""
        self._seed, self._steps = seed, None
        try:
            with calling(self.name, 0, seed):
                env = self._unused()
                self._fresh = False
                obs, _ = env.reset(seed=seed)
            flat = self._flatten(env, obs)
        except TrainingError:  # of the watchdog: it names the environment by itself
            raise
        except ReturnError as error:
            raise TrainingError(f"{self._where(0)}: {error}") from None
        except Exception as error:  # whatever an environment raises, the user needs its name and the seed
            raise TrainingError(f"{self._where(0)}: reset raised {_summary(error)}") from error
        self._check_observation(flat, 0)
        self._steps = 0
        return flat

    def step(self, action: FloatArray) -> StepResult:
        """See `ControlEnv.step`."""
        env = self._env
        if self._steps is None or env is None:
            raise TrainingError(f"environment '{self.name}': step without a running episode; call reset first")
        number = self._steps + 1
        scaled = self._action_scale.to_env(self._checked_action(action, number))
        self._steps = None  # until the step has gone well: a broken episode can't be continued
        try:
            with calling(self.name, number, self._seed):
                obs, raw_reward, terminated, truncated, info = env.step(scaled)
            flat = self._flatten(env, obs)
            reward = np.asarray(raw_reward, dtype=np.float64).reshape(()).item()
            ended, cut = bool(terminated), bool(truncated)
        except TrainingError:  # as in reset
            raise
        except ReturnError as error:
            raise TrainingError(f"{self._where(number)}: {error}") from None
        except Exception as error:  # as in reset
            raise TrainingError(f"{self._where(number)}: step raised {_summary(error)}") from error
        self._check_observation(flat, number)
        if not np.isfinite(reward):
            raise TrainingError(
                f"{self._where(number)}: the reward is {reward}; training needs finite numbers, so "
                "correct it in the environment"
            )
        self._steps = None if ended or cut else number
        return StepResult(flat, reward, ended, cut, info)

    def render(self) -> npt.NDArray[np.uint8] | None:
        """See `ControlEnv.render`. Raises TrainingError when the environment raises."""
        if self._env is None or self._env.render_mode != "rgb_array":
            return None
        try:
            with undisturbed():
                picture = np.asarray(self._env.render(), dtype=np.uint8)
        except Exception as error:  # whatever an environment raises, the user needs its name
            raise TrainingError(f"environment '{self.name}': render raised {_summary(error)}") from error
        return picture if picture.ndim == 3 and picture.shape[2] == 3 else None

    def close(self) -> None:
        """See `ControlEnv.close`."""
        env, self._env, self._steps = self._env, None, None
        if env is not None:
            close_quietly(env, self.name)

    def _unused(self) -> gymnasium.Env[Any, Any]:
        """An environment that has not run an episode yet."""
        if self._env is not None and self._fresh:
            return self._env
        self.close()
        self._env = self._build()
        return self._env

    @staticmethod
    def _flatten(env: gymnasium.Env[Any, Any], obs: Any) -> FloatArray:
        """A copy of the observation as one float32 vector, in the order of the observation space."""
        from gymnasium.spaces.utils import flatten

        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes inf and is reported as such
            return np.array(flatten(env.observation_space, obs), dtype=np.float32).reshape(-1)

    def _checked_action(self, action: FloatArray, number: int) -> FloatArray:
        if action.shape != (self.action_dim,):
            raise TrainingError(
                f"{self._where(number)}: an action of shape {action.shape} was given, ({self.action_dim},) is needed"
            )
        if not np.isfinite(action).all():
            raise TrainingError(f"{self._where(number)}: the action is not finite: {action.tolist()}")
        return action

    def _check_observation(self, flat: FloatArray, number: int) -> None:
        if flat.shape != (self._observation_dim,):
            raise TrainingError(
                f"{self._where(number)}: the observation has {flat.size} numbers, but the observation space "
                f"of the environment promises {self._observation_dim}"
            )
        if np.isfinite(flat).all():
            return
        index = int(np.flatnonzero(~np.isfinite(flat))[0])
        raise TrainingError(
            f"{self._where(number)}: entry {index} of the observation is {flat[index]} (as float32); "
            "training needs finite numbers, so correct it in the environment"
        )

    def _where(self, number: int) -> str:
        return f"environment '{self.name}', step {number} of the episode with seed {self._seed}"


def close_quietly(env: gymnasium.Env[Any, Any], name: str) -> None:
    """Close an environment that is not needed any more: what goes wrong is told once, and harms nothing."""
    try:
        with undisturbed():
            env.close()
    except Exception as error:  # noqa: BLE001 - whatever it raises, nothing is lost
        told = f"environment '{name}': close raised {_summary(error)}"
        if told not in _told:
            _told.add(told)
            _LOG.warning("%s", told)


def _summary(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
