from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import tdmpc_lab
from tdmpc_lab.envs.hockey import HockeyEnv, OnePlayerHockey

WHITE, BLACK, GREY = [255, 255, 255], [0, 0, 0], [204, 204, 204]
OCHRE, ORANGE, BLUE = [239, 203, 138], [235, 98, 53], [93, 158, 199]


def picture(env: HockeyEnv) -> Any:
    return env.render(mode="rgb_array")


def test_what_is_drawn_where() -> None:
    """Rows from the top, columns from the left; sixty pixels are a metre."""
    env = HockeyEnv()
    env.reset(one_starting=True, seed=0)
    env.puck.position = (3.0, 6.0)
    image = picture(env)
    assert image.shape == (480, 600, 3) and image.dtype == np.uint8 and image.flags["C_CONTIGUOUS"]
    expected = {
        (10, 300): WHITE,  # outside
        (30, 300): BLACK,  # the upper wall
        (450, 300): BLACK,
        (100, 55): BLACK,  # posts
        (400, 545): BLACK,
        (240, 55): OCHRE,  # the left goal, not covered
        (240, 545): OCHRE,
        (240, 90): WHITE,  # its covered half
        (240, 300): GREY,
        (240, 120): ORANGE,
        (240, 480): BLUE,
        (120, 180): BLACK,  # the puck, two metres above the middle
        (360, 180): WHITE,
    }
    assert {place: image[place].tolist() for place in expected} == expected


def test_the_rackets_flat_fronts_look_at_each_other() -> None:
    env = HockeyEnv()
    env.reset(one_starting=True, seed=0)
    image = picture(env)
    columns = [np.flatnonzero((image[240] == colour).all(axis=1)) for colour in (ORANGE, BLUE)]
    assert columns[0].max() == pytest.approx(120 + 6, abs=1) and columns[0].min() == pytest.approx(120 - 25, abs=1)
    assert columns[1].min() == pytest.approx(480 - 6, abs=1) and columns[1].max() == pytest.approx(480 + 25, abs=1)


def test_a_picture_shows_the_state_and_changes_nothing() -> None:
    env, other = HockeyEnv(), HockeyEnv()
    pictures = []
    for made in (env, other):
        made.reset(one_starting=True, seed=3)
    for step in range(20):
        if step % 5 == 0:
            pictures.append(picture(env))
        np.testing.assert_allclose(env.step(np.ones(8))[0], other.step(np.ones(8))[0], atol=1e-5)
    assert not np.array_equal(pictures[0], pictures[-1])
    pictures[0][:] = 0
    assert picture(env).max() == 255


def test_pygame_is_imported_with_the_first_picture_and_says_nothing() -> None:
    code = """
import os, sys
import tdmpc_lab.envs.hockey as hockey
env = hockey.HockeyEnv()
env.reset(seed=0)
assert "pygame" not in sys.modules
before = dict(os.environ)
env.render("rgb_array")
import pygame
assert not pygame.display.get_init() and dict(os.environ) == before
env.close()
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(tdmpc_lab.__file__).parent.parent)}
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


def test_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    import pygame

    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    env = HockeyEnv()
    env.reset(one_starting=True, seed=0)
    try:
        assert env.render() is None and env.screen.get_size() == (600, 480)
        window = pygame.surfarray.array3d(env.screen).transpose(1, 0, 2)
        np.testing.assert_array_equal(window, picture(env))
        env.close()
        assert env.screen is None and not env.isopen and not pygame.display.get_init()
        env.close()
        env.render()
        assert env.isopen, "another window, after the first was closed"
    finally:
        env.close()


def test_one_window_for_all_episodes_of_the_training_view(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    env = OnePlayerHockey(render_mode="human")
    try:
        env.reset(seed=0)
        screen = env._renderer.screen
        env.step(np.zeros(4, np.float32))
        env.reset(seed=1)
        assert screen is not None and env._renderer.screen is screen
    finally:
        env.close()


def test_pictures_of_the_training_view() -> None:
    env = gymnasium.make("tdmpc_lab/Hockey-v0", render_mode="rgb_array")
    env.reset(seed=0)
    image = env.render()
    assert isinstance(image, np.ndarray) and image.shape == (480, 600, 3)
    assert OnePlayerHockey().render() is None
    env.close()


def test_rendering_without_a_mode_warns() -> None:
    with pytest.warns(UserWarning, match="without a mode"):
        assert HockeyEnv().render(mode=None) is None
