"""Environments that do what gymnasium's interface does not say, or change what is not theirs; one oddity each."""

from __future__ import annotations

import io
import os
import signal
import sys
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Tuple

LENGTH = 10


class Base(gymnasium.Env):
    """As it should be."""

    observation_space: Any = Box(-1, 1, (3,), np.float32)
    action_space = Box(-1, 1, (2,), np.float32)
    t = 0

    def observation(self) -> Any:
        return np.array([np.sin(self.t), np.cos(self.t), self.t / LENGTH], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.observation(), {}

    def step(self, action):
        self.t += 1
        return self.observation(), -1.0, False, self.t >= LENGTH, {}


class Replaced(Base):
    """One of the five values of a step is another one."""

    place, value = 0, None

    def step(self, action):
        values = list(super().step(action))
        values[self.place] = self.value
        return tuple(values)


def replaced(place: int, value: Any) -> type:
    return type("Replaced", (Replaced,), {"place": place, "value": value})


class FourValues(Base):
    def step(self, action):
        observation, reward, _, truncated, info = super().step(action)
        return observation, reward, truncated, info


class NothingReturned(Base):
    def step(self, action):
        super().step(action)


class ObservationAlone(Base):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0]


class TwoNumbers(Base):
    """An observation of two numbers can be taken for an observation and its info."""

    observation_space = Box(-1, 1, (2,), np.float32)

    def observation(self):
        return np.zeros(2, np.float32)

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0]


class NoSeed(Base):
    def reset(self):
        self.t = 0
        return self.observation()


class KeyMissing(Base):
    observation_space = Dict(a=Dict(b=Box(-1, 1, (2,)), c=Box(-1, 1, ())), d=Box(-1, 1, (1,)))

    def observation(self):
        return {"a": {"b": np.zeros(2, np.float32)}, "d": np.zeros(1, np.float32)}


class NoMapping(KeyMissing):
    def observation(self):
        return np.zeros(4, np.float32)


class PartMissing(Base):
    observation_space = Tuple((Box(-1, 1, (1,)), Box(-1, 1, (1,))))

    def observation(self):
        return (np.zeros(1, np.float32),)


class OneInArrays(Base):
    """Numbers and truth values in arrays of one: taken as they are meant."""

    def step(self, action):
        observation, reward, _, truncated, info = super().step(action)
        return list(observation), np.array([reward]), np.array(False), np.array([truncated]), info


class CloseFails(Base):
    def close(self):
        raise RuntimeError("no display to close")


class CloseExits(Base):
    def close(self):
        raise SystemExit(3)


class CloseEndsGenerators(Base):
    def close(self):
        raise GeneratorExit


class Exits(Base):
    def step(self, action):
        raise SystemExit


class ConstructorExits(Base):
    def __init__(self) -> None:
        raise SystemExit("no licence")


class InferenceMode(Base):
    def __init__(self) -> None:
        import torch

        torch.inference_mode().__enter__()

    def reset(self, *, seed=None, options=None):
        import torch

        torch.inference_mode().__enter__()
        return super().reset(seed=seed)


class MetaDevice(Base):
    def __init__(self) -> None:
        import torch

        torch.set_default_device("meta")
        torch.use_deterministic_algorithms(True)
        torch.set_float32_matmul_precision("medium")


class Silent(Base):
    def reset(self, *, seed=None, options=None):
        sys.stdout = sys.stderr = io.StringIO()
        return super().reset(seed=seed)


class Float64(Base):
    def __init__(self) -> None:
        import torch

        torch.set_default_dtype(torch.float64)

    def step(self, action):
        import torch

        assert torch.zeros(1).dtype == torch.float64  # what it set holds for itself
        return super().step(action)


class NoGradients(Base):
    def step(self, action):
        import torch

        torch.set_grad_enabled(False)
        torch.set_num_threads(3)
        return super().step(action)


class Elsewhere(Base):
    def reset(self, *, seed=None, options=None):
        os.makedirs("elsewhere", exist_ok=True)  # noqa: PTH103
        os.chdir("elsewhere")
        return super().reset(seed=seed)


class Signals(Base):
    def __init__(self) -> None:
        for number in (signal.SIGTERM, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)


class Strict(Base):
    def __init__(self) -> None:
        np.seterr(all="raise")


class Filmed(Base):
    """Ends its process when it draws for the `last`th time."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    drawn = 0

    def __init__(self, last: int = 0, render_mode: str | None = None) -> None:
        self.last, self.render_mode = last, render_mode

    def render(self):
        Filmed.drawn += 1
        if Filmed.drawn == self.last:
            os.abort()
        return np.zeros((32, 32, 3), np.uint8)


ODD = {
    "NoReward": replaced(1, None),
    "TwoRewards": replaced(1, np.zeros(2)),
    "WordReward": replaced(1, "good"),
    "TwoEnds": replaced(2, np.array([False, True])),
    "NoEnd": replaced(3, None),
    "NoInfo": replaced(4, None),
    "NoObservation": replaced(0, None),
    "Ragged": replaced(0, [[0.0], [0.0, 1.0]]),
}


def register_all() -> None:
    """Make them known to gymnasium, by their names."""
    for name, kind in [*globals().items(), *ODD.items()]:
        if isinstance(kind, type) and issubclass(kind, Base) and f"{name}-v0" not in gymnasium.registry:
            gymnasium.register(f"{name}-v0", entry_point=kind, max_episode_steps=LENGTH)


register_all()
