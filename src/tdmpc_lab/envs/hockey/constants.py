"""The numbers of the game, and its modes. Lengths are metres unless a name says pixels.

The names are those of the original environment, whose users import them.
"""

from __future__ import annotations

import math
from enum import Enum
from numbers import Integral

FPS = 50
TIME_STEP = 1.0 / FPS
"""Seconds of one step."""
VELOCITY_ITERATIONS = 6 * 30
POSITION_ITERATIONS = 2 * 30

SCALE = 60.0
"""Pixels per metre."""
VIEWPORT_W = 600
"""Pixels."""
VIEWPORT_H = 480
"""Pixels."""
W = VIEWPORT_W / SCALE
H = VIEWPORT_H / SCALE
CENTER_X = W / 2
CENTER_Y = H / 2
ZONE = W / 20
"""Half the width of the strip in the middle that slows the players down."""

GOAL_SIZE = 75
"""Half the opening of a goal, in pixels."""
RACKETPOLY = [(-10, 20), (+5, 20), (+5, -20), (-10, -20), (-18, -10), (-21, 0), (-18, 10)]
"""Outline of player one's racket in pixels, before `RACKETFACTOR`."""
RACKETFACTOR = 1.2

MAX_ANGLE = math.pi / 3
"""A racket turned further than this is turned back by a spring, whatever its player does."""
MAX_TIME_KEEP_PUCK = 15
"""Value of a player's counter when he catches the puck; it counts down once a step."""
MAX_PUCK_SPEED = 25
"""Metres a second; a faster puck is slowed down hard."""
MAX_PLAYER_SPEED = 10
"""Metres a second; a faster player may only brake."""

FORCEMULTIPLIER = 6000
SHOOTFORCEMULTIPLIER = 60
TORQUEMULTIPLIER = 400

NUM_OBSERVATIONS = 18
NUM_ACTIONS = 4
STEPS_NORMAL = 250
STEPS_TRAINING = 80


class Mode(Enum):
    """What is played."""

    NORMAL = 0
    """The game: who starts has the puck in his half."""
    TRAIN_SHOOTING = 1
    """The puck lies in player one's half, player two stands anywhere in his."""
    TRAIN_DEFENSE = 2
    """The puck is shot at player one's goal."""


def as_mode(value: object) -> Mode:
    """The mode that a `Mode`, its name or its number stands for.

    Raises ValueError for an unknown name or number and TypeError for anything else.
    """
    if isinstance(value, Mode):
        return value
    if isinstance(value, str) and value in Mode.__members__:
        return Mode[value]
    if isinstance(value, Integral) and int(value) in {mode.value for mode in Mode}:
        return Mode(int(value))
    allowed = ", ".join(f"{mode.name} ({mode.value})" for mode in Mode)
    text = f"the mode of laser hockey is one of {allowed}, not {value!r}"
    raise (ValueError if isinstance(value, (str, Integral)) else TypeError)(text)
