"""What an environment returns, looked at before anybody uses it: what is wrong is said in the environment's terms."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Dict, Tuple

from tdmpc_lab.envs.control import ReturnError

_FIVE = "observation, reward, terminated, truncated, info"


class Returned(gymnasium.Wrapper[Any, Any, Any, Any]):
    """The innermost wrapper: those of gymnasium itself take what an environment returns for granted."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Raises ReturnError, and what the environment raises."""
        if not _takes_seed(self.env.reset):
            raise ReturnError(
                "its reset does not take seed and options, as in the old gym: "
                "write def reset(self, *, seed=None, options=None)"
            )
        found = self.env.reset(seed=seed, options=options)
        if not isinstance(found, tuple) or len(found) != 2 or not isinstance(found[1], Mapping):
            raise ReturnError(f"reset returned {_what(found)}; gymnasium has it return two values: observation, info")
        self._check(found[0], "reset")
        return found

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Raises ReturnError, and what the environment raises."""
        found: Any = self.env.step(action)
        if not isinstance(found, tuple) or len(found) != 5:
            old = isinstance(found, tuple) and len(found) == 4
            hint = " (four are those of the old gym: done is terminated or truncated now)" if old else ""
            raise ReturnError(f"step returned {_what(found)}; gymnasium has it return five: {_FIVE}{hint}")
        observation, reward, terminated, truncated, info = found
        self._check(observation, "step")
        if not _is_number(reward):
            raise ReturnError(f"the reward is {_what(reward)}; one number is needed")
        for name, value in (("terminated", terminated), ("truncated", truncated)):
            if not _is_number(value):
                raise ReturnError(f"{name} is {_what(value)}; one truth value is needed")
        if not isinstance(info, Mapping):
            raise ReturnError(f"info is {_what(info)}; a dict is needed, {{}} where there is nothing to say")
        return observation, reward, bool(np.all(terminated)), bool(np.all(truncated)), dict(info)

    def _check(self, observation: Any, what: str) -> None:
        if problem := _problem(self.env.observation_space, observation, "the observation"):
            raise ReturnError(f"{what} returned what is not of its observation space: {problem}")


def checked(env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    """The environment with `Returned` around its innermost part."""
    if not isinstance(env, gymnasium.Wrapper):
        return Returned(env)
    layer: Any = env
    while isinstance(layer.env, gymnasium.Wrapper):
        layer = layer.env
    layer.env = Returned(layer.env)
    return env


def _takes_seed(reset: Any) -> bool:
    try:
        parameters = inspect.signature(reset).parameters.values()
    except (TypeError, ValueError):  # written in another language: calling it will tell
        return True
    names = {parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD}
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    return takes_any or {"seed", "options"} <= names


def _problem(space: gymnasium.Space[Any], found: Any, where: str) -> str:
    """What part of an observation does not have the form of its space; "" where all have."""
    if isinstance(space, Dict):
        if not isinstance(found, Mapping):
            return f"{where} is {_what(found)}, and its space a Dict with the keys {', '.join(map(repr, space.spaces))}"
        if missing := [key for key in space.spaces if key not in found]:
            return f"{where} lacks {', '.join(map(repr, missing))}; it has {', '.join(map(repr, found)) or 'no keys'}"
        parts = [(part, found[key], f"{where}[{key!r}]") for key, part in space.spaces.items()]
    elif isinstance(space, Tuple):
        if not isinstance(found, tuple | list) or len(found) != len(space.spaces):
            return f"{where} is {_what(found)}, and its space a Tuple of {len(space.spaces)}"
        parts = [(part, found[index], f"{where}[{index}]") for index, part in enumerate(space.spaces)]
    else:
        return "" if _holds_numbers(found) else f"{where} is {_what(found)}; numbers are needed"
    return next(filter(None, (_problem(*part) for part in parts)), "")


def _holds_numbers(value: Any) -> bool:
    try:
        return np.asarray(value).dtype.kind in "bifu"
    except (ValueError, TypeError, RuntimeError):  # parts of different lengths; a tensor elsewhere than in memory
        return False


def _is_number(value: Any) -> bool:
    """Whether it is one number or truth value, be it in an array or tensor of one."""
    return _holds_numbers(value) and np.asarray(value).size == 1


def _what(value: Any) -> str:
    """A value in a few words."""
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)[:60]
    if isinstance(value, tuple | list):
        kind = type(value).__name__
        return f"a {kind} of {len(value)} value{'' if len(value) == 1 else 's'}"
    shape = getattr(value, "shape", None)
    return f"an array of shape {tuple(shape)}" if isinstance(shape, tuple) else f"a {type(value).__name__}"
