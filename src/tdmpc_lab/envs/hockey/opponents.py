"""Who plays against the agent: scripted bots, random actions, nobody, or a mixture drawn per episode."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from tdmpc_lab.envs.hockey.constants import MAX_ANGLE, SCALE
from tdmpc_lab.errors import EnvironmentSpecError

Vector = npt.NDArray[np.float64]

WEAK_GAIN = 0.5
STRONG_GAIN = 10.0
PHASE_STEP = 0.2
"""The swing of a scripted bot's racket continues by up to this much in each step, in radians."""

_HOME_X = -210 / SCALE
_SLOWLY_AWAY = 30 / SCALE
_ACTIONS = 4


@runtime_checkable
class Opponent(Protocol):
    """Plays player two.

    What it does in an episode depends on the seed of the episode and on what it sees, and on nothing before.
    A copy is made for every environment (`copy.deepcopy`); one that holds something large shares it there.
    """

    @property
    def name(self) -> str:
        """What the metrics call it; of a mixture, the one that plays this episode."""

    def start_episode(self, seed: int) -> None:
        """Forget everything and get ready for the episode of this seed (≥ 0)."""

    def act(self, obs: Vector) -> Vector:
        """Action (4,) in [−1, 1] for player two's own observation (18,): force x, force y, torque, shoot."""


FindOpponent: TypeAlias = Callable[[str], "Opponent | None"]
"""Makes the opponents that are no bots, by name; None for a name it doesn't know."""

OpponentSpec: TypeAlias = str | Mapping[str, float] | Opponent
"""A name, names with weights, or an opponent."""


def scripted_action(obs: Sequence[float], phase: float, gain: float, *, keep_mode: bool) -> list[float]:
    """Action of the scripted bot: it goes for a puck that comes, else home, and swings its racket.

    `obs` is the acting player's own observation, `phase` the angle of the swing, `gain` how hard he pushes.
    """
    own, velocity = obs[0:3], obs[3:6]
    puck_x, puck_y, puck_vx, puck_vy = obs[12:16]
    if puck_vx < _SLOWLY_AWAY:
        dx, dy = own[0] - puck_x, own[1] - puck_y
        if dx < 0 and abs(dy) < 0.5:
            target_x, target_y = puck_x + 0.2, puck_y + puck_vy * math.sqrt(dx * dx + dy * dy) * 0.1
        else:
            target_x, target_y = _HOME_X, puck_y
    else:
        target_x, target_y = _HOME_X, 0.0
    errors = (target_x - own[0], target_y - own[1], MAX_ANGLE * math.sin(phase) - own[2])
    gains, nearly_there = (gain, gain / 5, gain / 2), (0.1, 0.1, 1.0)
    action = []
    for error, speed, push, limit in zip(errors, velocity, gains, nearly_there, strict=True):
        brake = 0.5 if _arrival(error, speed) < limit else 0.0
        action.append(min(max(error * push - speed * brake, -1.0), 1.0))
    if keep_mode:
        action.append(1.0 if 0 < obs[16] < 7 else 0.0)
    return action


def _arrival(error: float, speed: float) -> float:
    """Seconds to the target; the offset keeps a racket at rest from dividing by zero, nearly always."""
    offset_speed = speed + 0.01
    return abs(error / offset_speed) if offset_speed else math.inf


class ScriptedOpponent:
    """The weak or the strong bot, its swing drawn from the seed of the episode."""

    def __init__(self, *, weak: bool) -> None:
        self.weak = weak
        self._gain = WEAK_GAIN if weak else STRONG_GAIN
        self.start_episode(0)

    @property
    def name(self) -> str:
        """See `Opponent.name`."""
        return "weak" if self.weak else "strong"

    def start_episode(self, seed: int) -> None:
        """See `Opponent.start_episode`."""
        self._rng = np.random.default_rng(seed)
        self._phase = self._rng.uniform(0, math.pi)

    def act(self, obs: Vector) -> Vector:
        """See `Opponent.act`."""
        self._phase += self._rng.uniform(0, PHASE_STEP)
        return np.array(scripted_action(obs.tolist(), self._phase, self._gain, keep_mode=True))


class RandomOpponent:
    """Uniformly random actions."""

    name = "random"

    def __init__(self) -> None:
        self.start_episode(0)

    def start_episode(self, seed: int) -> None:
        """See `Opponent.start_episode`."""
        self._rng = np.random.default_rng(seed)

    def act(self, obs: Vector) -> Vector:  # noqa: ARG002
        """See `Opponent.act`."""
        return self._rng.uniform(-1, 1, _ACTIONS)


class NoOpponent:
    """Stands where it is put."""

    name = "none"

    def start_episode(self, seed: int) -> None:
        """See `Opponent.start_episode`."""

    def act(self, obs: Vector) -> Vector:  # noqa: ARG002
        """See `Opponent.act`."""
        return np.zeros(_ACTIONS)


class MixedOpponent:
    """One of several opponents, drawn for each episode from its seed."""

    def __init__(self, members: Sequence[tuple[Opponent, float]]) -> None:
        """`members` are opponents with weights ≥ 0, which need not sum to 1 but must not all be 0."""
        possible = [(opponent, weight) for opponent, weight in members if weight > 0]
        self._members = [opponent for opponent, _ in possible]
        weights = np.array([weight for _, weight in possible], dtype=np.float64)
        self._upper_ends = np.cumsum(weights / weights.sum())
        self.start_episode(0)

    @property
    def name(self) -> str:
        """See `Opponent.name`."""
        return self._current.name

    def start_episode(self, seed: int) -> None:
        """See `Opponent.start_episode`."""
        rng = np.random.default_rng(seed)
        place = int(np.searchsorted(self._upper_ends, rng.random(), side="right"))
        self._current = self._members[min(place, len(self._members) - 1)]
        self._current.start_episode(int(rng.integers(2**32)))

    def act(self, obs: Vector) -> Vector:
        """See `Opponent.act`."""
        return self._current.act(obs)


_MAKERS: dict[str, Callable[[], Opponent]] = {
    "weak": lambda: ScriptedOpponent(weak=True),
    "strong": lambda: ScriptedOpponent(weak=False),
    "random": RandomOpponent,
    "none": NoOpponent,
}
OPPONENT_NAMES = tuple(_MAKERS)


def make_opponent(spec: OpponentSpec, find: FindOpponent | None = None) -> Opponent:
    """The opponent that a spec asks for: a name, names with weights (`{weak: 0.55, strong: 0.45}`), or itself.

    `find` is asked for names that are not in `OPPONENT_NAMES`, and returns None for those it doesn't know.
    Raises EnvironmentSpecError for unknown names and for weights that can't be drawn from.
    """
    if isinstance(spec, str):
        return _named(spec, find)
    if isinstance(spec, Mapping):
        weights = {name: _checked_weight(name, weight) for name, weight in spec.items()}
        if not any(weights.values()):
            raise _wrong(f"{dict(spec)}: at least one weight must be above 0")
        return MixedOpponent([(_named(name, find), weight) for name, weight in weights.items()])
    if isinstance(spec, Opponent):
        return spec
    raise _wrong(f"{spec!r} is not understood: {_ALLOWED}")


_ALLOWED = (
    f"write one of {', '.join(OPPONENT_NAMES)}, self, a job id or a checkpoint's path, or several with weights like "
    "{weak: 0.55, strong: 0.45}"
)


def _named(name: Any, find: FindOpponent | None) -> Opponent:
    if name in _MAKERS:
        return _MAKERS[name]()
    found = find(name) if find is not None and isinstance(name, str) else None
    if found is not None:
        return found
    near = difflib.get_close_matches(str(name), OPPONENT_NAMES, n=1)
    hint = f"did you mean '{near[0]}'?" if near else _ALLOWED
    raise _wrong(f"{name!r} is not known: {hint}")


def _checked_weight(name: Any, weight: Any) -> float:
    if isinstance(weight, bool) or not isinstance(weight, Real) or not 0 <= float(weight) < math.inf:
        raise _wrong(f"{name!r} has the weight {weight!r}: a finite number ≥ 0 is needed")
    return float(weight)


def _wrong(said: str) -> EnvironmentSpecError:
    return EnvironmentSpecError(f"opponent {said}", key="env.options.opponent", said=said)
