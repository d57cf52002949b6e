"""`HockeyEnv`: both players' actions in, player one's view out; and the info terms and the reward of a view.

Both players' terms come from the same functions: player two is given mirrored numbers.

Rules, order of operations and rounding follow the laser-hockey environment of Tübingen (package `hockey`
2.6), so that the same start and the same actions give the same episode to the last bit. Its quirks are
part of that; the view for training (`single.py`) has none of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import Env, logger, spaces
from gymnasium.utils import EzPickle, seeding

from tdmpc_lab.envs.hockey import forces
from tdmpc_lab.envs.hockey.constants import (
    CENTER_X,
    CENTER_Y,
    FPS,
    GOAL_SIZE,
    MAX_PUCK_SPEED,
    MAX_TIME_KEEP_PUCK,
    NUM_OBSERVATIONS,
    POSITION_ITERATIONS,
    SCALE,
    STEPS_NORMAL,
    STEPS_TRAINING,
    TIME_STEP,
    VELOCITY_ITERATIONS,
    H,
    Mode,
    W,
    as_mode,
)
from tdmpc_lab.envs.hockey.rendering import Renderer
from tdmpc_lab.envs.hockey.rink import (
    XY,
    Body,
    Rink,
    b2ContactListener,
    b2World,
    build_goals,
    build_player,
    build_puck,
    build_scenery,
)

WIN_REWARD = 10
_FULL_CLOSENESS = -30.0  # the closeness term of an episode in which the puck is always this far away:
_FULL_DISTANCE = 250 / SCALE


def closeness(distance: float, steps: int) -> float:
    """Term ≤ 0 for a player who is so many metres from a puck that lies in his half and doesn't leave it."""
    return distance * (_FULL_CLOSENESS / (_FULL_DISTANCE * steps / 2))


def touch(counter: float) -> float:
    """1 in the step in which the player caught the puck."""
    return 1.0 if counter == MAX_TIME_KEEP_PUCK else 0.0


def direction(puck_vx: float, steps: int) -> float:
    """Term for the speed of the puck towards the opponent's goal, in metres a second."""
    return puck_vx * (1 / (steps * MAX_PUCK_SPEED))


def info_of(winner: int, near: float, counter: float, puck_vx: float, steps: int) -> dict[str, Any]:
    """The info dictionary of one player. `steps` is the length of an episode."""
    return {
        "winner": winner,
        "reward_closeness_to_puck": near,
        "reward_touch_puck": touch(counter),
        "reward_puck_direction": direction(puck_vx, steps),
    }


def outcome(done: bool, winner: int) -> float:
    """The reward for how the game ended, for player one; 0 as long as it runs."""
    if not done or winner == 0:
        return 0.0
    return float(WIN_REWARD if winner == 1 else -WIN_REWARD)


def reward_of(base: float, info: Mapping[str, Any]) -> float:
    """The reward of a step: the outcome and the closeness; touch and direction are no part of it."""
    return float(base + info["reward_closeness_to_puck"])


class ContactDetector(b2ContactListener):  # type: ignore[misc]  # Box2D has no types
    """Sees goals and catches; the order of the four rules matters when both happen in one step."""

    def __init__(self, env: HockeyEnv) -> None:
        super().__init__()
        self.env = env

    def BeginContact(self, contact: Any) -> None:  # noqa: N802  the name is Box2D's
        """Two bodies began to touch."""
        env = self.env
        pair = (contact.fixtureA.body, contact.fixtureB.body)
        if env.puck not in pair:
            return
        if env.goal_player_2 in pair:
            env.score(1)
        if env.goal_player_1 in pair:
            env.score(-1)
        if not env.keep_mode:
            return
        puck_vx = env.puck.linearVelocity.x
        if env.player1 in pair and puck_vx < 0.1 and env.player1_has_puck == 0:
            env.player1_has_puck = MAX_TIME_KEEP_PUCK
        if env.player2 in pair and puck_vx > -0.1 and env.player2_has_puck == 0:
            env.player2_has_puck = MAX_TIME_KEEP_PUCK

    # Box2D calls these for every contact in every step; without them each call goes back into C++.
    def EndContact(self, contact: Any) -> None:  # noqa: N802
        """Nothing to do."""

    def PreSolve(self, contact: Any, oldManifold: Any) -> None:  # noqa: N802, N803
        """Nothing to do."""

    def PostSolve(self, contact: Any, impulse: Any) -> None:  # noqa: N802
        """Nothing to do."""


Observation = npt.NDArray[np.float64]
_UNKNOWN_DISTANCE = 1000.0


class HockeyEnv(Env[Any, Any], EzPickle):
    """Two players, one puck, 250 steps (80 in the training modes; see `step` for when it ends).

    With `keep_mode` a player who is touched by the puck holds it for up to 15 steps, and has a fourth action
    that shoots. `verbose` prints goals.

    Quirks that are kept: an observation is float64, and has 16 entries without `keep_mode`, whatever
    `observation_space` says; `reset` without a seed forgets an earlier seed; the counters of who holds the
    puck survive `reset`; a copied or unpickled environment is a new one with default arguments.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012  declared so by gymnasium
        "render.modes": ["human", "rgb_array"],
        "render_modes": ["human", "rgb_array"],
        "render_fps": FPS,
    }
    continuous = False

    constructor_seed: int | None = None
    """Seed of the reset inside the constructor; None draws one. No player sees what it gives, but it can decide
    how Box2D numbers the bodies of the next episodes, and with that their last bits."""

    player1: Body
    player2: Body
    puck: Body
    goal_player_1: Body
    goal_player_2: Body

    def __init__(self, keep_mode: bool = True, mode: Mode | str | int = Mode.NORMAL, verbose: bool = False) -> None:
        """Raises ValueError for an unknown mode, TypeError for one that is no Mode, name or number."""
        EzPickle.__init__(self)
        self.mode = mode
        self.keep_mode = keep_mode
        self.verbose = verbose
        self.num_actions = 4 if keep_mode else 3
        self.observation_space = spaces.Box(-np.inf, np.inf, shape=(NUM_OBSERVATIONS,), dtype=np.float32)
        self.action_space = spaces.Box(-1, +1, (2 * self.num_actions,), dtype=np.float32)
        self.discrete_action_space = spaces.Discrete(7)

        self.seed(self.constructor_seed)
        self.timeStep = TIME_STEP
        self.time = 0
        self.max_timesteps = STEPS_NORMAL
        self.done = False
        self.winner = 0
        self.one_starts = True
        self.player1_has_puck: float = 0
        self.player2_has_puck: float = 0
        self.closest_to_goal_dist = _UNKNOWN_DISTANCE
        self.prev_shaping: float | None = None

        self.world = b2World(gravity=(0, 0))
        self.world_objects: list[Body] = []
        self.drawlist: list[Body] = []
        self._rink: Rink | None = None
        self._listener: ContactDetector | None = None  # Box2D itself doesn't keep it alive
        self._renderer = Renderer()
        self.reset(one_starting=True, seed=self.constructor_seed)

    # --- settings ------------------------------------------------------------------------------------------

    @property
    def mode(self) -> Mode:
        """What is played from the next reset on; set by Mode, name or number."""
        return self._mode

    @mode.setter
    def mode(self, value: Mode | str | int) -> None:
        self._mode = as_mode(value)

    def seed(self, seed: int | None = None) -> list[int | None]:
        """Seed the random numbers; of no use before `reset`, which seeds them again."""
        self._np_random, self._np_random_seed = seeding.np_random(seed)
        return [seed]

    def r_uniform(self, low: float, high: float) -> float:
        """One random number in [low, high)."""
        return float(self.np_random.uniform(low, high))

    # --- episodes ------------------------------------------------------------------------------------------

    def reset(  # the order of the arguments is the original's
        self,
        one_starting: bool | None = None,
        mode: Mode | str | int | None = None,
        seed: int | None = None,
        options: dict[str, Any] | None = None,  # noqa: ARG002  part of gymnasium's interface
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode; returns player one's observation and info.

        `one_starting` says in whose half the puck lies in a normal game; None lets the other player start
        than last time. `mode` changes the mode from now on. Without a `seed` a fresh one is drawn.
        Raises ValueError or TypeError for a bad `mode`, and leaves the running episode as it is.
        """
        if mode is not None:
            self.mode = mode
        self._destroy()
        self.seed(seed)
        self._listener = ContactDetector(self)
        self.world.contactListener = self._listener
        self.done, self.winner, self.time = False, 0, 0
        self.prev_shaping = None
        self.closest_to_goal_dist = _UNKNOWN_DISTANCE
        if self.mode is Mode.NORMAL:
            self.max_timesteps = STEPS_NORMAL
            self.one_starts = not self.one_starts if one_starting is None else one_starting
        else:
            self.max_timesteps = STEPS_TRAINING
        self._build()
        return self._get_obs(), self._get_info()

    def step(self, action: npt.ArrayLike) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Take one step of 1/50 s with the actions of player one, then player two, one after the other.

        An action is force x, force y, torque and, with `keep_mode`, shoot (when above 0.5), each in [−1, 1]
        and clipped to it, seen from the player's own side. An episode that no goal ends is done in step 251
        (81 in the training modes), as terminated; nothing is ever truncated. Stepping on is allowed.
        """
        a = _clipped(action)
        k = self.num_actions
        player1, player2, puck = self.player1, self.player2, self.puck
        forces.push_player(player1, a[0], a[1], one=True)
        forces.turn_player(player1, a[2])
        forces.push_player(player2, a[k], a[k + 1], one=False)
        forces.turn_player(player2, a[k + 2])
        forces.limit_puck_speed(puck)
        if self.keep_mode:
            if self.player1_has_puck > 1:
                self.player1_has_puck = self._held(player1, self.player1_has_puck, a[3], one=True)
            if self.player2_has_puck > 1:
                self.player2_has_puck = self._held(player2, self.player2_has_puck, a[k + 3], one=False)

        self.world.Step(TIME_STEP, VELOCITY_ITERATIONS, POSITION_ITERATIONS)

        obs = self._get_obs()
        if self.time >= self.max_timesteps:
            self.done = True
        info = self._get_info()
        reward = self.get_reward(info)
        position = puck.position
        self.closest_to_goal_dist = min(self.closest_to_goal_dist, forces.distance(position, (W, H / 2)))
        self.time += 1
        return obs, reward, self.done, False, info

    def score(self, winner: int) -> None:
        """Note a goal: 1 when player one scored, −1 when player two did. A later goal counts more."""
        if self.verbose:
            print(f"Player {1 if winner == 1 else 2} scored")
        self.done, self.winner = True, winner

    def set_state(self, state: npt.ArrayLike) -> None:
        """Put players and puck into a state given as player one's observation (18 numbers, 16 without keep mode).

        Not restored are time, outcome, who starts, the puck's spin and what Box2D remembers of the contacts,
        so an episode that continues from here may differ from the original one in the last bits.
        """
        vector = np.asarray(state)
        numbers = vector.astype(np.float64).tolist()
        for player, first in ((self.player1, 0), (self.player2, 6)):
            x, y, angle, vx, vy, spin = numbers[first : first + 6]
            player.position = (x + CENTER_X, y + CENTER_Y)
            player.angle = angle
            player.linearVelocity = (vx, vy)
            player.angularVelocity = spin
        self.puck.position = (numbers[12] + CENTER_X, numbers[13] + CENTER_Y)
        self.puck.linearVelocity = (numbers[14], numbers[15])
        if self.keep_mode:
            self.player1_has_puck, self.player2_has_puck = vector[16], vector[17]

    # --- what the players see ------------------------------------------------------------------------------

    def obs_agent_two(self) -> Observation:
        """Player two's observation: the rink turned by half a turn, so that he plays from left to right too."""
        return self._observe(self.player2, self.player1, -1.0, (self.player2_has_puck, self.player1_has_puck))

    def get_info(self) -> dict[str, Any]:
        """Player one's info: winner (1, 0, −1), and the closeness, touch and direction terms."""
        return self._get_info()

    def get_info_agent_two(self) -> dict[str, Any]:
        """Player two's info, from his own view."""
        return self._info(self.player2, -1, self.player2_has_puck)

    def get_reward(self, info: Mapping[str, Any]) -> float:
        """Player one's reward: ±10 for the outcome when done, and the closeness term of `info`."""
        return reward_of(self._compute_reward(), info)

    def get_reward_agent_two(self, info_two: Mapping[str, Any]) -> float:
        """Player two's reward from his info."""
        return reward_of(-self._compute_reward(), info_two)

    def _get_obs(self) -> Observation:
        return self._observe(self.player1, self.player2, 1.0, (self.player1_has_puck, self.player2_has_puck))

    def _get_info(self) -> dict[str, Any]:
        return self._info(self.player1, 1, self.player1_has_puck)

    def _compute_reward(self) -> float:
        return outcome(self.done, self.winner)

    def _observe(self, own: Body, other: Body, side: float, counters: tuple[float, float]) -> Observation:
        numbers = [*_body_view(own, side), *_body_view(other, side)]
        puck, velocity = self.puck.position, self.puck.linearVelocity
        numbers += (
            side * (puck.x - CENTER_X),
            side * (puck.y - CENTER_Y),
            side * velocity.x,
            side * velocity.y,
        )
        obs = np.empty(NUM_OBSERVATIONS if self.keep_mode else NUM_OBSERVATIONS - 2)
        obs[:16] = np.array(numbers, dtype=np.float32)  # the differences above are float32 differences
        if self.keep_mode:
            obs[16], obs[17] = counters
        return obs

    def _info(self, player: Body, side: int, counter: float) -> dict[str, Any]:
        """The info of the player whose half is where side · (x − 5) < 0."""
        puck, vx = self.puck.position, self.puck.linearVelocity.x
        near = 0.0
        if side * (puck.x - CENTER_X) < 0 and side * vx <= 0:
            near = closeness(forces.distance(player.position, puck), self.max_timesteps)
        return info_of(side * self.winner, near, counter, side * vx, self.max_timesteps)

    # --- actions and pictures ------------------------------------------------------------------------------

    def discrete_to_continous_action(self, discrete_action: int) -> list[float]:
        """One player's action for a number: 0 nothing, 1 and 2 x, 3 and 4 y, 5 and 6 torque, 7 shoot."""
        action = [
            (discrete_action == 2) * 1.0 - (discrete_action == 1) * 1.0,
            (discrete_action == 4) * 1.0 - (discrete_action == 3) * 1.0,
            (discrete_action == 6) * 1.0 - (discrete_action == 5) * 1.0,
        ]
        if self.keep_mode:
            action.append((discrete_action == 7) * 1.0)
        return action

    def render(self, mode: str | None = "human") -> npt.NDArray[np.uint8] | None:
        """Show the rink in a window ("human") or return it as (480, 600, 3) bytes ("rgb_array")."""
        if mode is None:
            logger.warn("render was called without a mode: pass mode='human' or mode='rgb_array'")
            return None
        if mode == "human":
            self._renderer.show(self.drawlist)
            return None
        return self._renderer.picture(self.drawlist)

    @property
    def screen(self) -> Any:
        """The window's surface; None as long as there is no window."""
        return self._renderer.screen

    @property
    def isopen(self) -> bool:
        """Whether `close` has not closed a window yet."""
        return self._renderer.is_open

    def close(self) -> None:
        """Close the window, if there is one."""
        self._renderer.close()

    # --- the world -----------------------------------------------------------------------------------------

    def _held(self, player: Body, counter: float, shoot: float, *, one: bool) -> float:
        """Move the puck with the player who holds it; returns his counter, 0 when he has shot."""
        forces.hold_puck(self.puck, player)
        counter -= 1
        if counter != 1 and not shoot > 0.5:
            return counter
        forces.shoot_puck(self.puck, player, one=one)
        return 0

    def _destroy(self) -> None:
        if self._rink is None:
            return
        self.world.contactListener = None
        self._rink.destroy(self.world)
        self._rink = None
        self.world_objects, self.drawlist = [], []

    def _build(self) -> None:
        """Make the bodies of an episode; the order of creation and of the random numbers is part of the rules."""
        scenery = build_scenery(self.world)
        self.goal_player_1, self.goal_player_2 = build_goals(self.world)
        self.player1 = build_player(self.world, (W / 5, H / 2), one=True)
        self.player2 = build_player(self.world, self._place_of_player_two(), one=False)
        self.puck = build_puck(self.world, self._place_of_puck())
        if self.mode is Mode.TRAIN_DEFENSE:
            aim = 0.6 * self.r_uniform(-GOAL_SIZE / SCALE, GOAL_SIZE / SCALE)
            forces.shoot_puck_at(self.puck, (0.0, H / 2 + aim))
        self._rink = Rink(
            scenery=scenery,
            goal_player_1=self.goal_player_1,
            goal_player_2=self.goal_player_2,
            player1=self.player1,
            player2=self.player2,
            puck=self.puck,
        )
        self.world_objects = scenery
        self.drawlist = self._rink.drawlist()

    def _place_of_player_two(self) -> XY:
        if self.mode is Mode.NORMAL:
            return 4 * W / 5, H / 2
        x = 4 * W / 5 + self.r_uniform(-W / 3, W / 6)
        return x, H / 2 + self.r_uniform(-H / 4, H / 4)

    def _place_of_puck(self) -> XY:
        if self.mode is Mode.TRAIN_DEFENSE:
            x = W / 2 + self.r_uniform(0, W / 3)
            return x, H / 2 + 0.8 * self.r_uniform(-H / 2, H / 2)
        away = self.r_uniform(H / 8, H / 4)
        left = self.mode is Mode.TRAIN_SHOOTING or self.one_starts
        x = W / 2 - away if left else W / 2 + away
        return x, H / 2 + self.r_uniform(-H / 8, H / 8)


def _clipped(action: npt.ArrayLike) -> list[float]:
    """The action as float32 numbers in [−1, 1]."""
    numbers = np.asarray(action).tolist()
    clipped = [x if -1.0 <= x <= 1.0 else min(max(x, -1.0), 1.0) for x in numbers]  # NumPy's clip takes longer
    rounded: list[float] = np.array(clipped, dtype=np.float32).tolist()
    return rounded


def _body_view(body: Body, side: float) -> tuple[float, float, float, float, float, float]:
    """A player's position from the centre, angle, velocity and spin, seen from one side (−1: turned by 180°)."""
    position, velocity = body.position, body.linearVelocity
    return (
        side * (position.x - CENTER_X),
        side * (position.y - CENTER_Y),
        body.angle,
        side * velocity.x,
        side * velocity.y,
        body.angularVelocity,
    )
