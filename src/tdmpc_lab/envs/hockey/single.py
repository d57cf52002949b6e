"""The one-player views for training: an opponent plays player two, and an episode is a function of its seed."""

from __future__ import annotations

import importlib
from typing import Any, ClassVar, Protocol, get_args

import numpy as np
import numpy.typing as npt
from gymnasium import Env, error, spaces

from tdmpc_lab.config.schema import TimeLimit
from tdmpc_lab.envs.hockey.constants import FPS, NUM_OBSERVATIONS, STEPS_NORMAL, STEPS_TRAINING, Mode, as_mode
from tdmpc_lab.envs.hockey.core import HockeyEnv
from tdmpc_lab.envs.hockey.opponents import Opponent, OpponentSpec, make_opponent
from tdmpc_lab.envs.hockey.rendering import Renderer
from tdmpc_lab.errors import EnvironmentSpecError

FloatArray = npt.NDArray[np.float32]

_ACTIONS = 4
OBSERVATION_MIRROR = (1, -1, -1, 1, -1, -1, 1, -1, -1, 1, -1, -1, 1, -1, 1, -1, 1, 1)
"""Up and down exchanged: y, angle, the velocity's y and spin of both players, y and its velocity of the puck."""
ACTION_MIRROR = (1, -1, -1, 1)
"""The same for force x, force y, torque, shoot."""
_STREAM = 0x686F636B  # "hock" in ASCII; keeps what is drawn here apart from what the game draws from the seed


class TwoPlayerGame(Protocol):
    """What the view needs of a two-player core: ours or the original package's."""

    def reset(self, one_starting: bool | None = None, *, seed: int | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode; player one's observation and info."""

    def step(self, action: npt.NDArray[np.float64]) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step with both players' actions, (8,)."""

    def obs_agent_two(self) -> npt.NDArray[np.float64]:
        """Player two's observation."""

    def close(self) -> None:
        """Close the window, if there is one."""


class _SeededCore(HockeyEnv):
    """The core with nothing left to chance: even how Box2D numbers its bodies is always the same."""

    constructor_seed = 0


class OnePlayerHockey(Env[FloatArray, FloatArray]):
    """Laser hockey for one agent, who is player one.

    Observation (18,) float32: own position from the centre, angle, velocity, spin; the same of the opponent;
    the puck's position and velocity; steps left that the agent, the opponent holds the puck. Action (4,) in
    [−1, 1]: force x, force y, torque, shoot (when above 0.5). Reward: 10 or −10 with the goal that ends the
    episode, and in every step a small negative term while the puck lies in the agent's half, larger with its
    distance. The info holds `winner` (1, 0, −1), the three reward terms, and `opponent`, who plays.

    The world, who starts and what the opponent draws come from the seed of the episode alone. `reset`
    without a seed draws one. The options of `reset` may hold `one_starting`, which overrules the constructor's.
    """

    metadata: dict[str, Any] = {"render_modes": ["human", "rgb_array"], "render_fps": FPS}  # noqa: RUF012
    has_opponents: ClassVar[bool] = True
    mirror_signs: ClassVar[tuple[tuple[int, ...], tuple[int, ...]]] = (OBSERVATION_MIRROR, ACTION_MIRROR)

    def __init__(
        self,
        *,
        mode: Mode | str | int = Mode.NORMAL,
        opponent: OpponentSpec = "weak",
        time_limit: TimeLimit = "terminated",
        one_starting: bool | None = None,
        render_mode: str | None = None,
    ) -> None:
        """`one_starting`: the agent always starts, never, or, by default, in half of the episodes.

        `time_limit` says how an episode without a goal ends: "terminated" as in the original game, so that
        nothing is to be had after it, or "truncated", so that its last state keeps its value.
        Raises EnvironmentSpecError for options that are not allowed.
        """
        if time_limit not in get_args(TimeLimit):
            raise _of_option("time_limit", f"is one of {', '.join(get_args(TimeLimit))}, not {time_limit!r}")
        if one_starting is not None and not isinstance(one_starting, bool):
            raise _of_option("one_starting", f"is true, false or null, not {one_starting!r}")
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise _of_option("render_mode", f"is human, rgb_array or null, not {render_mode!r}")
        try:
            self.mode = as_mode(mode)
        except (ValueError, TypeError) as problem:
            raise EnvironmentSpecError(str(problem), key="env.options", option="mode") from problem
        self.opponent: Opponent = make_opponent(opponent)
        self.time_limit = time_limit
        self.one_starting = one_starting
        self.render_mode = render_mode
        self.observation_space = spaces.Box(-np.inf, np.inf, (NUM_OBSERVATIONS,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (_ACTIONS,), np.float32)
        self._game: TwoPlayerGame | None = None
        self._renderer = Renderer()

    @property
    def episode_length(self) -> int:
        """Steps after which an episode ends at the latest: the game counts to its limit and then one more."""
        return (STEPS_NORMAL if self.mode is Mode.NORMAL else STEPS_TRAINING) + 1

    @property
    def game(self) -> TwoPlayerGame:
        """The two-player game of the running episode; raises RuntimeError before the first reset."""
        if self._game is None:
            raise RuntimeError("there is no game yet: call reset first")
        return self._game

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[FloatArray, dict[str, Any]]:
        """Start the episode of `seed`; the info also says whether the agent starts (`one_starting`)."""
        super().reset(seed=seed)
        if seed is None:
            seed = int(self.np_random.integers(2**31))
        coin, opponent_seed = np.random.SeedSequence([seed, _STREAM]).generate_state(2).tolist()
        one_starting = (options or {}).get("one_starting", self.one_starting)
        if one_starting is None:
            one_starting = coin % 2 == 0
        self.opponent.start_episode(opponent_seed)
        self._game = self._new_game()
        obs, info = self._game.reset(one_starting, seed=seed)
        if self.render_mode == "human":
            self.render()
        return obs.astype(np.float32), {**info, "opponent": self.opponent.name, "one_starting": one_starting}

    def step(self, action: FloatArray) -> tuple[FloatArray, float, bool, bool, dict[str, Any]]:
        """Take one step; raises ValueError when the action is not of shape (4,)."""
        own = np.asarray(action, dtype=np.float64)
        if own.shape != (_ACTIONS,):
            raise ValueError(f"an action of laser hockey has the shape ({_ACTIONS},), not {own.shape}")
        game = self.game
        other = self.opponent.act(game.obs_agent_two())
        obs, reward, done, _, info = game.step(np.concatenate((own, other)))
        timed_out = done and info["winner"] == 0 and self.time_limit == "truncated"
        if self.render_mode == "human":
            self.render()
        info["opponent"] = self.opponent.name
        return obs.astype(np.float32), float(reward), done and not timed_out, timed_out, info

    def render(self) -> npt.NDArray[np.uint8] | None:
        """The rink as (480, 600, 3) bytes with render_mode "rgb_array"; with "human" it is shown in a window."""
        if self.render_mode is None:
            return None
        return self._render(self.render_mode)

    def close(self) -> None:
        """Close the window, if there is one; harmless when called twice."""
        self._renderer.close()

    def _new_game(self) -> TwoPlayerGame:
        return _SeededCore(keep_mode=True, mode=self.mode)

    def _render(self, mode: str) -> npt.NDArray[np.uint8] | None:
        game = self.game
        assert isinstance(game, HockeyEnv)
        if mode == "rgb_array":
            return self._renderer.picture(game.drawlist)
        self._renderer.show(game.drawlist)  # one window, though every episode has a game of its own
        return None


class OriginalHockey(OnePlayerHockey):
    """The same view of the original `hockey` package, which has to be installed.

    Its constructor draws random numbers that nobody can seed, and they can decide how Box2D numbers the bodies:
    the last bits of an episode, and what follows from them, may differ from run to run.
    """

    def __init__(self, **options: Any) -> None:
        """Takes the options of `OnePlayerHockey`; raises DependencyNotInstalled without the package."""
        super().__init__(**options)
        try:
            self._module = importlib.import_module("hockey.hockey_env")
        except ImportError as problem:
            raise error.DependencyNotInstalled(
                f"the original laser hockey (package 'hockey') can't be imported ({problem}): run "
                "`pip install git+https://github.com/martius-lab/hockey-env.git`, or set env.id to 'hockey', "
                "which is the same game and needs nothing more"
            ) from problem

    def close(self) -> None:
        """Close the window, if there is one."""
        if self._game is not None:
            self._game.close()

    def _new_game(self) -> TwoPlayerGame:
        self.close()
        game: TwoPlayerGame = self._module.HockeyEnv(keep_mode=True, mode=self.mode.value)
        return game

    def _render(self, mode: str) -> npt.NDArray[np.uint8] | None:
        picture: npt.NDArray[np.uint8] | None = self.game.render(mode=mode)  # type: ignore[attr-defined]
        return picture


def _of_option(name: str, message: str) -> EnvironmentSpecError:
    return EnvironmentSpecError(message, key=f"env.options.{name}", said=message.removeprefix(f"{name} "))
