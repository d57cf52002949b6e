from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from tdmpc_lab.envs.spaces import action_scale, describe, observation_dim
from tdmpc_lab.errors import EnvironmentSpecError


def box(*shape: int, dtype: Any = np.float32) -> spaces.Box:
    return spaces.Box(0, 1, shape, dtype)


def test_the_ends_and_the_middle_map_exactly() -> None:
    low, high = np.array([0.1, -3.0, 5.0], np.float32), np.array([0.7, 9.0, 5.0], np.float32)
    scale = action_scale(spaces.Box(low, high), "X")
    np.testing.assert_array_equal(scale.to_env(np.full(3, -1.0, np.float32)), low)
    np.testing.assert_array_equal(scale.to_env(np.full(3, 1.0, np.float32)), high)
    np.testing.assert_allclose(scale.to_env(np.zeros(3, np.float32)), [0.4, 3.0, 5.0], rtol=1e-6)
    np.testing.assert_allclose(scale.to_env(np.full(3, 0.5, np.float32)), [0.55, 6.0, 5.0], rtol=1e-6)


def test_unit_bounds_leave_an_action_bit_for_bit_as_it_is() -> None:
    action = np.random.default_rng(0).uniform(-1, 1, 1000).astype(np.float32) * np.float32(1e-6)
    scale = action_scale(spaces.Box(-1.0, 1.0, (1000,), np.float32), "X")
    np.testing.assert_array_equal(scale.to_env(action), action)


def test_a_scaled_action_is_always_inside_the_space() -> None:
    rng = np.random.default_rng(1)
    for dtype in (np.float32, np.float64):
        low = rng.normal(size=50).astype(dtype) * 100
        space = spaces.Box(low, low + rng.random(50).astype(dtype) * 3, dtype=dtype)
        scale = action_scale(space, "X")
        for value in (-1.0, -0.999999, 0.3, 0.999999, 1.0, 7.0, -7.0):
            assert space.contains(scale.to_env(np.full(50, value, np.float32)))


def test_an_action_takes_the_shape_and_type_of_the_environment() -> None:
    scale = action_scale(spaces.Box(-2, 2, (2, 3), np.float64), "X")
    action = scale.to_env(np.linspace(-1, 1, 6, dtype=np.float32))
    assert scale.dim == 6 and action.shape == (2, 3) and action.dtype == np.float64
    assert action[0, 0] == -2 and action[1, 2] == 2


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(4),
        spaces.MultiDiscrete([3, 2]),
        spaces.MultiBinary(3),
        spaces.Tuple([box(2), box(1)]),
        spaces.Dict(arm=box(2)),
        box(2, dtype=np.int64),
    ],
    ids=lambda space: type(space).__name__,
)
def test_other_action_spaces_are_refused_with_the_remedy(space: spaces.Space[Any]) -> None:
    with pytest.raises(EnvironmentSpecError) as caught:
        action_scale(space, "Robot-v0")
    text = str(caught.value)
    assert "Robot-v0" in text and describe(space) in text
    assert "one Box of floats" in text and "LunarLander-v3 with env.options {continuous: true}" in text


@pytest.mark.parametrize("bound", [np.inf, np.nan])
def test_action_bounds_must_be_finite(bound: float) -> None:
    space = spaces.Box(np.array([0.0, -1.0]), np.array([1.0, np.inf]), dtype=np.float64)
    space.high[1] = bound
    with pytest.raises(EnvironmentSpecError, match=r"component 1 of 2 lies in \[-1\.0, (inf|nan)\].*finite"):
        action_scale(space, "X")


def test_an_empty_space_is_refused() -> None:
    with pytest.raises(EnvironmentSpecError, match="empty action space"):
        action_scale(box(0), "X")
    with pytest.raises(EnvironmentSpecError, match="empty observation space"):
        observation_dim(box(0), "X")


def test_vectors_of_any_number_type_are_observations() -> None:
    assert observation_dim(box(3), "X") == 3
    assert observation_dim(box(), "X") == 1
    assert observation_dim(box(4, 5), "X") == 20
    assert observation_dim(box(2, 3, 4), "X") == 24
    assert observation_dim(spaces.Box(0, 255, (128,), np.uint8), "X") == 128
    assert observation_dim(spaces.Dict(b=box(2), a=spaces.Tuple([box(3), box(1, 1)])), "X") == 6


@pytest.mark.parametrize(
    ("space", "reason"),
    [
        (spaces.Box(0, 255, (96, 96, 3), np.uint8), "images"),
        (spaces.Box(0, 255, (8, 8), np.uint8), "images"),
        (box(3, 64, 64), "images"),
        (spaces.Discrete(16), "only Box"),
        (spaces.MultiBinary(4), "only Box"),
        (spaces.Text(5), "only Box"),
    ],
    ids=str,
)
def test_other_observation_spaces_are_refused(space: spaces.Space[Any], reason: str) -> None:
    with pytest.raises(EnvironmentSpecError) as caught:
        observation_dim(space, "Robot-v0")
    text = str(caught.value)
    assert "Robot-v0" in text and describe(space) in text and reason in text and "Pendulum-v1" in text


def test_the_part_of_a_nested_observation_that_is_wrong_is_named() -> None:
    space = spaces.Dict(camera=spaces.Tuple([box(1), box(64, 64, 3)]), joints=box(7))
    with pytest.raises(EnvironmentSpecError, match=r"Box\(shape \(64, 64, 3\), float32\) at \['camera'\]\[1\]"):
        observation_dim(space, "X")


def test_a_large_space_is_described_in_one_short_line() -> None:
    limits = np.random.default_rng(0).random(500, dtype=np.float32)
    assert describe(spaces.Box(-limits, limits)) == "Box(shape (500,), float32)"
    many = describe(spaces.Dict({f"joint{i}": box(2) for i in range(100)}))
    assert len(many) <= 160 and "\n" not in many and many.endswith("…")
