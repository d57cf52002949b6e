"""Evaluation: whole episodes in separate environments with seeds of their own, planned for in one batched call."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tdmpc_lab.agent import Agent
from tdmpc_lab.config.phases import Mode
from tdmpc_lab.envs import ControlEnv, evaluation_seeds
from tdmpc_lab.errors import EnvironmentSpecError, TrainingError
from tdmpc_lab.intervals import wilson
from tdmpc_lab.training.metrics import Row
from tdmpc_lab.training.stop import StopFlag
from tdmpc_lab.training.video import Frame

_LOG = logging.getLogger(__name__)
SIDE_BY_SIDE = 16
OUTCOMES = {"win": 1, "draw": 0, "loss": -1}
"""The shares of a game's outcomes, by the value of `winner`."""

MakeEnv = Callable[..., ControlEnv]
"""Makes an environment; with `film=True` one that can be filmed."""


@dataclass(frozen=True)
class Case:
    """One kind of episode to be played: against one opponent, from one side."""

    make: MakeEnv
    seeds: tuple[int, ...]
    opponent: str | None = None
    """None where there is none."""
    agent_starts: bool | None = None
    """Who has the puck first; None where the environment decides."""


@dataclass(frozen=True)
class EpisodeResult:
    """One evaluation episode."""

    seed: int
    total: float  # undiscounted return, raw reward
    length: int  # steps
    opponent: str | None = None
    winner: int | None = None  # of a game: 1 the agent, −1 the opponent, 0 nobody
    agent_started: bool | None = None


@dataclass(frozen=True)
class Film:
    """The pictures of one episode."""

    frames: Sequence[Frame]
    fps: int
    of: str
    """Which episode it is, in words."""


@dataclass(frozen=True)
class Evaluation:
    """The episodes of one evaluation."""

    episodes: tuple[EpisodeResult, ...]
    film: Film | None = None

    @property
    def opponents(self) -> list[str]:
        """Who was played against, in the order of the episodes."""
        return list(dict.fromkeys(e.opponent for e in self.episodes if e.opponent is not None))

    def against(self, opponent: str) -> Evaluation:
        """The episodes against one opponent."""
        return Evaluation(tuple(e for e in self.episodes if e.opponent == opponent))

    def row(self) -> Row:
        """The part of a metric row that describes this evaluation; `return_std` is over the episodes.

        Of games also the shares `win`, `draw` and `loss`, and with several opponents `win_weak` and so on of each.
        """
        returns = np.array([e.total for e in self.episodes])
        row: Row = {
            "return_mean": float(returns.mean()),
            "return_std": float(returns.std()),
            "return_min": float(returns.min()),
            "return_max": float(returns.max()),
            "length_mean": float(np.mean([e.length for e in self.episodes])),
            "episodes": len(self.episodes),
            **self.shares(),
        }
        if len(self.opponents) > 1:
            for opponent in self.opponents:
                part = self.against(opponent)
                row |= {f"{name}_{opponent}": share for name, share in part.shares().items()}
                row |= {f"return_{opponent}": float(np.mean([e.total for e in part.episodes]))}
        elif self.opponents:
            row["opponent"] = self.opponents[0]
        return row

    def policy_row(self) -> Row:
        """What the same games came to by the policy alone: beside `row`, it tells what planning is worth."""
        row: Row = {"policy_return_mean": float(np.mean([e.total for e in self.episodes]))}
        if "win" in (shares := self.shares()):
            row["policy_win"] = shares["win"]
        return row

    def by_side(self) -> Row:
        """The share of games won when the agent had the puck first, `win_starting`, and when not, `win_receiving`."""
        sides = {True: "win_starting", False: "win_receiving"}
        parts = {name: [e for e in self.episodes if e.agent_started is side] for side, name in sides.items()}
        return {name: sum(e.winner == 1 for e in part) / len(part) for name, part in parts.items() if part}

    def shares(self) -> dict[str, float]:
        """Shares of games won, drawn and lost, and the 95 % Wilson interval of the first; nothing of other episodes."""
        winners = [e.winner for e in self.episodes]
        if not winners or any(winner is None for winner in winners):
            return {}
        shares = {name: winners.count(value) / len(winners) for name, value in OUTCOMES.items()}
        low, high = wilson(winners.count(1), len(winners))
        return {**shares, "win_low": low, "win_high": high}


def game_cases(make: Callable[..., MakeEnv], opponents: Iterable[str], *, seed: int, episodes: int) -> tuple[Case, ...]:
    """Cases for `episodes` games against each opponent, the agent starting in every other one.

    `make(opponent, one_starting)` gives the maker of the environments. Every opponent meets the same start states.
    """
    seeds = evaluation_seeds(seed, episodes)
    return tuple(
        Case(make(opponent, starts), tuple(seeds[side::2]), opponent, starts)
        for opponent in opponents
        for side, starts in enumerate((True, False))
        if seeds[side::2]
    )


class Evaluator:
    """Plays the same start states at every call, so that two evaluations differ by the agent alone.

    It touches no random state of the training: environments and planning draw from seeds of their own.
    """

    def __init__(
        self, cases: Sequence[Case], *, seed: int, mode: Mode = "plan", side_by_side: int = SIDE_BY_SIDE
    ) -> None:
        """`mode` says whether the agent plans unless `run` says otherwise; `side_by_side` episodes at a time."""
        self._queue = [(case, seed_) for case in cases for seed_ in case.seeds]
        self._plan_seed, self._mode, self._side_by_side = seed, mode, side_by_side

    def run(
        self,
        agent: Agent,
        stop: StopFlag | None = None,
        *,
        film: bool = False,
        mode: Mode | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Evaluation | None:
        """Play all episodes with the agent as it is, without exploration noise; None once `stop` is set.

        `mode` is for this time only. With `film` the first episode is filmed, where its environment makes pictures.
        `progress` is told how many episodes of how many are done: before the first one, and whenever one ends.
        """
        stop = StopFlag() if stop is None else stop
        tell = progress or (lambda _done, _of: None)
        tell(0, len(self._queue))
        results: list[EpisodeResult] = []
        pictures: Film | None = None
        for start in range(0, len(self._queue), self._side_by_side):
            if stop:
                return None
            batch = self._queue[start : start + self._side_by_side]
            envs: list[ControlEnv] = []

            def ended(count: int, before: int = start) -> None:
                tell(before + count, len(self._queue))

            try:
                for place, (case, _) in enumerate(batch):
                    envs.append(_make(case, film=film and start + place == 0))
                fps = envs[0].frames_per_second
                played, frames = self._play(
                    agent,
                    envs,
                    batch,
                    stop,
                    mode or self._mode,
                    film=film and start == 0,
                    ended=ended,
                )
            finally:
                for env in envs:
                    env.close()
            results += played
            if frames:
                pictures = Film(frames, fps, _in_words(played[0]))
        if stop:
            return None
        return Evaluation(tuple(results), pictures)

    def _play(
        self,
        agent: Agent,
        envs: list[ControlEnv],
        batch: list[tuple[Case, int]],
        stop: StopFlag,
        mode: Mode,
        *,
        film: bool,
        ended: Callable[[int], None],
    ) -> tuple[list[EpisodeResult], list[Frame]]:
        """One episode in each environment, side by side; broken off when `stop` is set. `ended` is told how many have
        come to their end, whenever one has."""
        state = agent.plan_state(len(batch), seed=self._plan_seed)
        observations = np.stack([env.reset(seed) for env, (_, seed) in zip(envs, batch, strict=True)])
        totals = [0.0] * len(batch)
        lengths = [0] * len(batch)
        winners: list[int | None] = [None] * len(batch)
        frames: list[Frame] = []
        running = np.arange(len(batch))
        while len(running) and not stop:
            if film and 0 in running:
                picture = _picture(envs[0])
                film = picture is not None
                frames += [] if picture is None else [picture]
            if mode == "policy":
                actions = agent.act_prior(observations[running])
            else:
                actions = agent.act(observations[running], state, explore=False, envs=running)
            going_on = []
            for i, action in zip(running.tolist(), actions, strict=True):
                result = envs[i].step(action)
                observations[i] = result.obs
                totals[i] += result.reward
                lengths[i] += 1
                if result.terminated or result.truncated:
                    winner = result.info.get("winner")
                    winners[i] = None if winner is None else int(winner)
                else:
                    going_on.append(i)
            if len(going_on) < len(running):
                ended(len(batch) - len(going_on))
            running = np.array(going_on, dtype=np.int64)
        results = [
            EpisodeResult(seed, totals[i], lengths[i], case.opponent, winners[i], case.agent_starts)
            for i, (case, seed) in enumerate(batch)
        ]
        return results, frames


def _make(case: Case, *, film: bool) -> ControlEnv:
    """The environment of a case; one that can't be filmed is played all the same."""
    if film:
        try:
            return case.make(film=True)
        except EnvironmentSpecError:  # what is wrong without the camera too is told below
            return case.make(film=False)
    return case.make(film=False)


def _picture(env: ControlEnv) -> Frame | None:
    """The picture of this moment; None where there is none: a film is never worth an evaluation."""
    try:
        return env.render()
    except TrainingError as error:
        _LOG.warning("%s", error)
        return None


def _in_words(episode: EpisodeResult) -> str:
    against = f" against {episode.opponent}" if episode.opponent else ""
    won = {1: ", won", 0: ", drawn", -1: ", lost"}.get(episode.winner, "") if episode.winner is not None else ""
    return f"episode with seed {episode.seed}{against}{won}, return {episode.total:.1f}"
