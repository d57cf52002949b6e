"""The environments of a training: what an episode is played in, by phase and pool, and what is evaluated in."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from tdmpc_lab.config.phases import SELF, Mode, opponent_weights, phases_of, split_mode
from tdmpc_lab.config.schema import EnvConfig, EvalConfig, Spec
from tdmpc_lab.config.serialize import dump_yaml
from tdmpc_lab.envs import ControlEnv, EpisodeSetting, evaluation_seeds, has_opponents, make_env
from tdmpc_lab.envs.hockey.opponents import MixedOpponent, Opponent
from tdmpc_lab.errors import EnvironmentSpecError
from tdmpc_lab.files import Guard
from tdmpc_lab.training.evaluate import Case, MakeEnv, game_cases
from tdmpc_lab.training.load import header
from tdmpc_lab.training.opponents import (
    AgentOpponents,
    OpponentFiles,
    SelfPlayPool,
    env_with_pool,
    evaluation_opponents,
    no_files,
)


def made_of(spec: Spec, spec_yaml: str) -> dict[str, Any]:
    """The `load.header` of a spec's checkpoints: makes its environments to ask for the sizes.

    Phases may differ in the length of an episode; the longest counts, for discount and warm-up of the whole training.

    Raises:
        EnvironmentSpecError: it can't be made or is not supported.
    """
    envs: list[EnvConfig] = []
    for phase in phases_of(spec):
        alone = replace(phase.env, opponent=None)  # who plays changes no size
        envs += [] if alone in envs else [alone]
    found = []
    for config in envs:
        env = make_env(config)
        found.append((env.observation_dim, env.action_dim, env.episode_length))
        env.close()
    sizes = {(observation, action) for observation, action, _ in found}
    if len(sizes) > 1:
        raise EnvironmentSpecError(f"phases: observation and action have different sizes in them: {sorted(sizes)}")
    return header(spec_yaml, found[0][0], found[0][1], max(length for *_, length in found))


class Worlds:
    """Makes the environments of a spec; the opponents' agents are shared by all of them."""

    def __init__(
        self,
        spec: Spec,
        opponents: OpponentFiles = no_files,
        *,
        pool: Path | None = None,
        guard: Guard = nullcontext,
        mode: Mode = "policy",
        device: str | None = None,
    ) -> None:
        """Makes one environment to ask for its sizes.

        Args:
            opponents: the checkpoints of the opponents that are agents.
            pool: folder for the agent's past copies; needed to train against them.
            mode: how an opponent acts that has no mode in its name.
            device: of the opponents' networks, default that of the training.

        Raises:
            EnvironmentSpecError: the environment can't be made or is not supported.
        """
        self._spec = spec
        self.phases = phases_of(spec)
        self.made_of = made_of(spec, dump_yaml(spec))
        self._agents = AgentOpponents(
            opponents,
            device=device or spec.train.device,
            observation_dim=self.made_of["observation_dim"],
            action_dim=self.made_of["action_dim"],
            default=mode,
        )
        self.pool = None if pool is None else self._make_pool(pool, guard)

    def _make_pool(self, folder: Path, guard: Guard) -> SelfPlayPool | None:
        named = {split_mode(name)[0] for phase in self.phases for name in opponent_weights(phase.env)}
        config = self._spec.env.self_play
        return None if SELF not in named or config is None else SelfPlayPool(config, folder, self.made_of, guard)

    def make(self, setting: EpisodeSetting) -> ControlEnv:
        """The environment for training episodes of a setting. Raises EnvironmentSpecError."""
        env = env_with_pool(self.phases[setting.phase].env, setting.copies)
        return make_env(env, find_opponent=lambda name: self._find(name, setting.copies))

    def cases(self, evaluation: EvalConfig) -> tuple[Case, ...]:
        """What is evaluated: against every opponent from both sides; without opponents, the environment as it is."""
        spec = self._spec
        if not has_opponents(spec.env.id):
            seeds = tuple(evaluation_seeds(spec.train.seed, evaluation.episodes))
            return (Case(_maker(spec.env), seeds),)
        named = evaluation.opponents or evaluation_opponents([phase.env for phase in self.phases])
        opponents = list(dict.fromkeys(named))  # a second time would be the same games, counted twice
        return versus(spec.env, opponents, self._agents, seed=spec.train.seed, episodes=evaluation.episodes)

    def _find(self, name: str, copies: int) -> Opponent | None:
        ref, mode = split_mode(name)
        if ref != SELF:
            return self._agents.find(name)
        if self.pool is None:
            raise EnvironmentSpecError("opponent 'self': there is no folder for the agent's copies in this training")
        members = self.pool.members(copies)
        self._agents.forget_others(members)
        return MixedOpponent([(self._agents.from_file(path, SELF, mode), 1.0) for path in members])


def versus(
    env: EnvConfig, opponents: list[str], agents: AgentOpponents, *, seed: int, episodes: int
) -> tuple[Case, ...]:
    """Cases for evaluating against these opponents, `episodes` games each, from both starting sides."""

    def make(opponent: str, one_starting: bool) -> MakeEnv:
        return _maker(replace(env, opponent=opponent), agents.find, one_starting=one_starting)

    return game_cases(make, opponents, seed=seed, episodes=episodes)


def _maker(
    env: EnvConfig, find: Callable[[str], Opponent | None] | None = None, *, one_starting: bool | None = None
) -> MakeEnv:
    side = {} if one_starting is None else {"one_starting": one_starting}

    def make(*, film: bool = False) -> ControlEnv:
        return make_env(env, find_opponent=find, render_mode="rgb_array" if film else None, **side)

    return make
