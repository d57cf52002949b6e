"""The rest of the original package's public names: its bot, its keyboard player, its one-player class."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from tdmpc_lab.envs.hockey.constants import Mode
from tdmpc_lab.envs.hockey.core import HockeyEnv, Observation
from tdmpc_lab.envs.hockey.opponents import PHASE_STEP, STRONG_GAIN, WEAK_GAIN, scripted_action


class BasicOpponent:
    """The scripted bot, its swing drawn from NumPy's global random numbers (`np.random.seed`)."""

    def __init__(self, weak: bool = True, keep_mode: bool = True) -> None:
        self.weak = weak
        self.keep_mode = keep_mode
        self.phase: float = np.random.uniform(0, math.pi)

    def act(self, obs: npt.ArrayLike, verbose: bool = False) -> npt.NDArray[np.float64]:
        """Action (4,), or (3,) without keep mode, for the acting player's own observation."""
        numbers = np.asarray(obs, dtype=np.float64).tolist()
        self.phase += np.random.uniform(0, PHASE_STEP)
        gain = WEAK_GAIN if self.weak else STRONG_GAIN
        action = scripted_action(numbers, self.phase, gain, keep_mode=self.keep_mode)
        if verbose:
            print(f"phase {self.phase:.3f}, action {action}")
        return np.array(action)


class HumanOpponent:
    """A user at the keyboard of the window."""

    _HELP = "\n".join(
        (
            "Human controls:",
            " left:\t\t\tarrow key left",
            " right:\t\t\tarrow key right",
            " up:\t\t\tarrow key up",
            " down:\t\t\tarrow key down",
            " tilt clockwise:\tw",
            " tilt anti-clockwise:\ts",
            " shoot:\t\t\tspace",
        )
    )

    def __init__(self, env: HockeyEnv, player: int = 1) -> None:
        """Opens the window of `env` if it is not open, and prints the keys. `player` is 1 or 2."""
        self.env = env
        self.player = player
        if env.screen is None:
            env.render()
        import pygame

        turned = player != 1  # player two sees the rink turned by half a turn
        self.key_action_mapping = {
            pygame.K_LEFT: 2 if turned else 1,
            pygame.K_UP: 3 if turned else 4,
            pygame.K_RIGHT: 1 if turned else 2,
            pygame.K_DOWN: 4 if turned else 3,
            pygame.K_w: 5,
            pygame.K_s: 6,
            pygame.K_SPACE: 7,
        }
        print(self._HELP)

    def act(self, obs: Any) -> list[float]:  # noqa: ARG002  a user looks at the window
        """The action of the keys that are pressed; of several, the last of the list above counts."""
        import pygame

        pressed = pygame.key.get_pressed()
        chosen = 0
        for key, action in self.key_action_mapping.items():
            if pressed[key]:
                chosen = action
        return self.env.discrete_to_continous_action(chosen)


class HockeyEnv_BasicOpponent(HockeyEnv):  # noqa: N801  the original's name
    """Player one's four actions in; player two is a `BasicOpponent`, strong unless `weak_opponent`."""

    def __init__(self, mode: Mode | str | int = Mode.NORMAL, weak_opponent: bool = False) -> None:
        super().__init__(keep_mode=True, mode=mode)
        self.opponent = BasicOpponent(weak=weak_opponent)
        self.action_space = spaces.Box(-1, +1, (4,), dtype=np.float32)

    def step(self, action: npt.ArrayLike) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Step with player one's action (4,); the opponent sees the state before the step."""
        return super().step(np.hstack([np.asarray(action), self.opponent.act(self.obs_agent_two())]))
