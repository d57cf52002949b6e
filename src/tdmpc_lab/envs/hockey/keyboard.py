"""A person at the keyboard as the opponent of an agent."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]

KEYS = "arrow keys move, w and s turn, space shoots"


class KeyboardPlayer:
    """Plays player two, on the right of the window, which has to be open (render mode `human`)."""

    name = "you"

    def start_episode(self, seed: int) -> None:
        """Nothing to forget: a person remembers."""

    def act(self, obs: Vector) -> Vector:  # noqa: ARG002  a person looks at the window
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
