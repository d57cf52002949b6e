"""Two-player laser hockey, and the one-player views of it that agents are trained with.

`HockeyEnv`, `HockeyEnv_BasicOpponent`, `BasicOpponent`, `HumanOpponent`, `Mode` and the constants have the
names and the behaviour of the package `hockey`, so that a script written for it needs only another import.
`OnePlayerHockey` is what the trainer uses. Importing this package registers with gymnasium:

    tdmpc_lab/Hockey-v0           one player, the normal game; env.id 'hockey' of a spec
    tdmpc_lab/HockeyShooting-v0   one player, TRAIN_SHOOTING
    tdmpc_lab/HockeyDefense-v0    one player, TRAIN_DEFENSE
    tdmpc_lab/HockeyOriginal-v0   one player, on top of the original package; env.id 'hockey-original'
    Hockey-v0, Hockey-One-v0      as the original names them: two players; one player against the strong bot
"""

from __future__ import annotations

from typing import Any

import gymnasium

from tdmpc_lab.envs.hockey.constants import (
    CENTER_X,
    CENTER_Y,
    FORCEMULTIPLIER,
    FPS,
    GOAL_SIZE,
    MAX_ANGLE,
    MAX_PUCK_SPEED,
    MAX_TIME_KEEP_PUCK,
    RACKETFACTOR,
    RACKETPOLY,
    SCALE,
    SHOOTFORCEMULTIPLIER,
    TORQUEMULTIPLIER,
    VIEWPORT_H,
    VIEWPORT_W,
    ZONE,
    H,
    Mode,
    W,
)
from tdmpc_lab.envs.hockey.core import ContactDetector, HockeyEnv
from tdmpc_lab.envs.hockey.opponents import OPPONENT_NAMES, Opponent, OpponentSpec, make_opponent
from tdmpc_lab.envs.hockey.original_api import BasicOpponent, HockeyEnv_BasicOpponent, HumanOpponent
from tdmpc_lab.envs.hockey.single import OnePlayerHockey, OriginalHockey

__all__ = [
    "CENTER_X",
    "CENTER_Y",
    "FORCEMULTIPLIER",
    "FPS",
    "GOAL_SIZE",
    "MAX_ANGLE",
    "MAX_PUCK_SPEED",
    "MAX_TIME_KEEP_PUCK",
    "OPPONENT_NAMES",
    "RACKETFACTOR",
    "RACKETPOLY",
    "SCALE",
    "SHOOTFORCEMULTIPLIER",
    "TORQUEMULTIPLIER",
    "VIEWPORT_H",
    "VIEWPORT_W",
    "ZONE",
    "BasicOpponent",
    "ContactDetector",
    "H",
    "HockeyEnv",
    "HockeyEnv_BasicOpponent",
    "HumanOpponent",
    "Mode",
    "OnePlayerHockey",
    "Opponent",
    "OpponentSpec",
    "OriginalHockey",
    "W",
    "make_opponent",
]

_SINGLE = "tdmpc_lab.envs.hockey.single"
_ORIGINAL_API = "tdmpc_lab.envs.hockey.original_api"


def register_environments() -> None:
    """Register the ids above; one that is there already (the original package was imported first) is left alone."""
    known: dict[str, tuple[str, dict[str, Any]]] = {
        "tdmpc_lab/Hockey-v0": (f"{_SINGLE}:OnePlayerHockey", {"mode": "NORMAL"}),
        "tdmpc_lab/HockeyShooting-v0": (f"{_SINGLE}:OnePlayerHockey", {"mode": "TRAIN_SHOOTING"}),
        "tdmpc_lab/HockeyDefense-v0": (f"{_SINGLE}:OnePlayerHockey", {"mode": "TRAIN_DEFENSE"}),
        "tdmpc_lab/HockeyOriginal-v0": (f"{_SINGLE}:OriginalHockey", {"mode": "NORMAL"}),
        "Hockey-v0": ("tdmpc_lab.envs.hockey.core:HockeyEnv", {"mode": 0}),
        "Hockey-One-v0": (f"{_ORIGINAL_API}:HockeyEnv_BasicOpponent", {"mode": 0, "weak_opponent": False}),
    }
    for name, (entry_point, kwargs) in known.items():
        if name not in gymnasium.registry:
            ours = "/" in name  # the others don't pass gymnasium's checks, as they are the original's
            gymnasium.register(name, entry_point=entry_point, kwargs=kwargs, disable_env_checker=not ours)


register_environments()
