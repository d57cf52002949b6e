"""Small gymnasium environments for the tests of `tdmpc_lab.envs`, each with one peculiarity."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Counting(gymnasium.Env[Any, Any]):
    """Observation [steps so far, last action as the environment got it, noise of the episode]; never ends."""

    def __init__(self, *, low: float = -1.0, high: float = 1.0, shape: tuple[int, ...] = (1,), size: int = 1) -> None:
        self.size = size
        self.action_space = spaces.Box(low, high, shape, np.float32)
        self.observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float64)
        self.received: list[Any] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        self.noise = self.np_random.normal()
        return self.observe(0.0), {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.received.append(action)
        self.steps += 1
        return self.observe(float(np.ravel(action)[0])), 0.5, False, False, {"steps": self.steps}

    def observe(self, action: float) -> Any:
        return np.array([self.steps, action, self.noise])


class Faulty(Counting):
    """Does one thing wrong in its third step, or in reset."""

    def __init__(self, *, fault: str) -> None:
        super().__init__()
        self.fault = fault

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        obs, info = super().reset(seed=seed)
        if self.fault == "reset raises":
            raise RuntimeError("no world today")
        if self.fault == "reset gives inf":
            obs[1] = np.inf
        return obs, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = super().step(action)
        if self.steps < 3:
            return obs, reward, terminated, truncated, info
        match self.fault:
            case "step raises":
                raise ZeroDivisionError("the pole has no length")
            case "nan reward":
                reward = float("nan")
            case "nan observation":
                obs[2] = np.nan
            case "observation too large":
                obs[0] = 1e200
            case "short observation":
                obs = obs[:2]
            case "no reward":
                reward = None
            case "ends":
                terminated = True
        return obs, reward, terminated, truncated, info


class DictObservation(Counting):
    """Observation `{"b": (2, 2), "a": (scalar, (1,))}`."""

    def __init__(self) -> None:
        super().__init__()
        box = spaces.Box(-10.0, 10.0, (2, 2), np.float32)
        pair = spaces.Tuple([spaces.Box(-1.0, 1.0, (), np.float64), spaces.Box(-9, 9, (1,), np.int64)])
        self.observation_space = spaces.Dict({"b": box, "a": pair})

    def observe(self, action: float) -> Any:
        matrix = np.arange(4, dtype=np.float32).reshape(2, 2)
        # not in the order of the space, on purpose
        return {"b": matrix, "a": (np.float64(0.5), np.array([7]))}


class WithSpaces(Counting):
    """Any spaces; never stepped."""

    def __init__(
        self, *, observation: spaces.Space[Any] | None = None, action: spaces.Space[Any] | None = None
    ) -> None:
        super().__init__()
        self.observation_space = observation or self.observation_space
        self.action_space = action or self.action_space


class Unbuildable(Counting):
    """Its constructor fails."""

    def __init__(self) -> None:
        raise OSError("first line\nno such robot: /dev/robot7")
