"""Which spaces the trainer can work with, and the mapping of actions from [−1, 1] to the environment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tdmpc_lab.errors import EnvironmentSpecError

if TYPE_CHECKING:
    import gymnasium

_IMAGE_SIDE = 16  # pixels; no vector of sensors is laid out with three axes, two of them this long
_DESCRIPTION_LIMIT = 160  # characters of a space in an error message
EXAMPLES = "for example Pendulum-v1, BipedalWalker-v3, or LunarLander-v3 with env.options {continuous: true}"


@dataclass(frozen=True)
class ActionScale:
    """The affine map from [−1, 1] to the bounds of an action space, computed in float64.

    gymnasium's own `RescaleAction` may leave the bounds by one rounding step, which environments that check
    their actions refuse; here the result is clipped to the bounds.
    """

    low: npt.NDArray[np.float64]
    """Lower bounds, in the shape of the environment's action space; finite."""
    high: npt.NDArray[np.float64]
    """Upper bounds, likewise."""
    dtype: np.dtype[Any]
    """Number type the environment wants."""

    @property
    def dim(self) -> int:
        """Length of the flat action."""
        return int(self.low.size)

    def to_env(self, action: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """From (dim,) in [−1, 1], clipped, to the environment's own shape, bounds and number type."""
        unit = np.clip(action.astype(np.float64), -1.0, 1.0).reshape(self.low.shape)
        centre, half = (self.low + self.high) / 2, (self.high - self.low) / 2
        return np.clip(centre + unit * half, self.low, self.high).astype(self.dtype)


def action_scale(space: gymnasium.Space[Any], name: str, *, has_continuous_option: bool = False) -> ActionScale:
    """The map to `space`; raises EnvironmentSpecError when it is not one Box of floats with finite bounds.

    `has_continuous_option` says that the constructor takes `continuous`, which is then the remedy.
    """
    from gymnasium.spaces import Box

    if not isinstance(space, Box) or not np.issubdtype(space.dtype, np.floating):
        remedy = "Set env.options.continuous: true" if has_continuous_option else f"Choose another one, {EXAMPLES}"
        raise EnvironmentSpecError(
            f"env.id '{name}' has the action space {describe(space)}. Supported is one Box of floats with "
            f"finite bounds (continuous actions). {remedy}",
            key="env.id",
        )
    if space.low.size == 0:
        raise EnvironmentSpecError(
            f"env.id '{name}' has an empty action space, {describe(space)}: nothing to learn", key="env.id"
        )
    unbounded = np.flatnonzero(~(np.isfinite(space.low) & np.isfinite(space.high)).reshape(-1))
    if unbounded.size:
        index = int(unbounded[0])
        low, high = space.low.reshape(-1)[index], space.high.reshape(-1)[index]
        raise EnvironmentSpecError(
            f"env.id '{name}' has an action space without finite bounds: component {index} of "
            f"{space.low.size} lies in [{low}, {high}]. Actions in [−1, 1] are rescaled to the bounds, so "
            "they must be finite. Give the environment finite bounds, e.g. with "
            "gymnasium.wrappers.TransformAction where it is registered",
            key="env.id",
        )
    return ActionScale(space.low.astype(np.float64), space.high.astype(np.float64), space.low.dtype)


def observation_dim(space: gymnasium.Space[Any], name: str) -> int:
    """Length of the flattened observation; raises EnvironmentSpecError where it can't be flattened."""
    from gymnasium.spaces.utils import flatdim

    for key, part in _leaves(space, ""):
        found = describe(part) if not key else f"{describe(part)} at {key} of the observation"
        problem = _observation_problem(part)
        if problem:
            raise EnvironmentSpecError(
                f"env.id '{name}' has the observation space {found}: {problem}. Supported are Box of "
                f"numbers, and Dict and Tuple of Box, which are flattened to one vector; {EXAMPLES}",
                key="env.id",
            )
    dim = int(flatdim(space))
    if dim == 0:
        raise EnvironmentSpecError(f"env.id '{name}' has an empty observation space, {describe(space)}", key="env.id")
    return dim


def describe(space: gymnasium.Space[Any]) -> str:
    """A space in one short line; gymnasium's own text of a large Box lists every bound."""
    from gymnasium.spaces import Box, Dict, Tuple

    if isinstance(space, Box):
        return f"Box(shape {tuple(space.shape)}, {space.dtype})"
    if isinstance(space, Dict):
        text = "Dict(" + ", ".join(f"{key}: {describe(part)}" for key, part in space.spaces.items()) + ")"
    elif isinstance(space, Tuple):
        text = "Tuple(" + ", ".join(describe(part) for part in space.spaces) + ")"
    else:
        text = " ".join(str(space).split())
    return text if len(text) <= _DESCRIPTION_LIMIT else text[: _DESCRIPTION_LIMIT - 1] + "…"


def _leaves(space: gymnasium.Space[Any], key: str) -> list[tuple[str, gymnasium.Space[Any]]]:
    """The spaces inside nested Dict and Tuple, each with its path such as `['camera'][0]`."""
    from gymnasium.spaces import Dict, Tuple

    if isinstance(space, Dict):
        return [leaf for name, part in space.spaces.items() for leaf in _leaves(part, f"{key}[{name!r}]")]
    if isinstance(space, Tuple):
        return [leaf for index, part in enumerate(space.spaces) for leaf in _leaves(part, f"{key}[{index}]")]
    return [(key, space)]


def _observation_problem(space: gymnasium.Space[Any]) -> str:
    """Why this part of an observation can't be used; "" when it can."""
    from gymnasium.spaces import Box

    if not isinstance(space, Box):
        return "only Box holds numbers that can be read as a vector"
    long_axes = sum(side >= _IMAGE_SIDE for side in space.shape)
    is_bytes = space.dtype == np.uint8 and len(space.shape) > 1
    if is_bytes or (len(space.shape) > 2 and long_axes > 1):
        return "images are not supported, the encoder reads vectors"
    return ""
