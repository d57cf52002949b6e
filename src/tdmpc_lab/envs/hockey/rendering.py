"""Pictures of the game, in a window or as arrays, and a user at the keyboard as the opponent of an agent."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from tdmpc_lab.envs.hockey.constants import FPS, SCALE, VIEWPORT_H, VIEWPORT_W
from tdmpc_lab.envs.hockey.rink import b2CircleShape

_SIZE = (VIEWPORT_W, VIEWPORT_H)
_OUTLINE = 2  # pixels
_BANNER = "PYGAME_HIDE_SUPPORT_PROMPT"


class Renderer:
    """Draws bodies on a surface in memory, and shows it in a window that is opened when it is first needed."""

    def __init__(self) -> None:
        self.screen: Any = None
        self.is_open = True
        self._clock: Any = None

    def picture(self, bodies: Iterable[Any]) -> npt.NDArray[np.uint8]:
        """The rink as (480, 600, 3) bytes, red, green, blue; needs no display."""
        with _quiet_pygame() as pygame:
            columns = pygame.surfarray.array3d(self._draw(pygame, bodies))
        return np.ascontiguousarray(columns.transpose(1, 0, 2), dtype=np.uint8)

    def show(self, bodies: Iterable[Any]) -> None:
        """Show the rink in a window, and wait so that frames come 50 times a second."""
        with _quiet_pygame() as pygame:
            if self.screen is None:
                pygame.display.init()  # pygame.init() would open the sound card too
                self.screen = pygame.display.set_mode(_SIZE)
                self._clock = pygame.time.Clock()
                self.is_open = True
            self.screen.blit(self._draw(pygame, bodies), (0, 0))
            pygame.event.pump()
            self._clock.tick(FPS)
            pygame.display.flip()

    def close(self) -> None:
        """Close the window; the next `show` opens another one."""
        if self.screen is None:
            return
        self.screen, self._clock, self.is_open = None, None, False
        with _quiet_pygame() as pygame:
            pygame.display.quit()

    @staticmethod
    def _draw(pygame: Any, bodies: Iterable[Any]) -> Any:
        surface = pygame.Surface(_SIZE, 0, 32)
        surface.fill((255, 255, 255))
        for body in bodies:
            to_world, colour = body.transform, body.color1
            for fixture in body.fixtures:
                shape = fixture.shape
                if isinstance(shape, b2CircleShape):
                    centre = _pixels(to_world * shape.pos)
                    for width in (0, _OUTLINE):
                        pygame.draw.circle(surface, colour, centre, shape.radius * SCALE, width)
                else:
                    corners = [_pixels(to_world * vertex) for vertex in shape.vertices]
                    for width in (0, _OUTLINE):
                        pygame.draw.polygon(surface, colour, corners, width)
        return pygame.transform.flip(surface, False, True)


def _pixels(point: Any) -> tuple[float, float]:
    """A point of the world in pixels. The product is Box2D's, in float32: pygame cuts the fraction off, and in
    float64 the edge of a wall would be at 49.999999."""
    scaled = point * SCALE
    return scaled.x, scaled.y


@contextmanager
def _quiet_pygame() -> Iterator[Any]:
    """pygame, imported without its greeting: standard output may be what a script reads."""
    before = os.environ.get(_BANNER)
    os.environ[_BANNER] = "1"
    try:
        import pygame
    finally:
        if before is None:
            del os.environ[_BANNER]
        else:
            os.environ[_BANNER] = before
    yield pygame


Vector = npt.NDArray[np.float64]

KEYS = "arrow keys move, w and s turn, space shoots"


class KeyboardPlayer:
    """Plays player two, on the right of the window, which has to be open (render mode `human`)."""

    name = "you"

    def start_episode(self, seed: int) -> None:
        """Nothing to forget: a user remembers."""

    def act(self, obs: Vector) -> Vector:  # noqa: ARG002  a user looks at the window
        """The action of the keys that are pressed now, (4,): force x, force y, torque, shoot.

        Player two sees the rink turned by half a turn, so that forwards is his positive x.
        """
        import pygame

        pressed = pygame.key.get_pressed()

        def axis(more: int, less: int) -> float:
            return float(pressed[more]) - float(pressed[less])

        return np.array(
            [
                axis(pygame.K_LEFT, pygame.K_RIGHT),
                axis(pygame.K_DOWN, pygame.K_UP),
                axis(pygame.K_s, pygame.K_w),
                float(pressed[pygame.K_SPACE]),
            ]
        )
