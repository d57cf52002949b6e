"""Opponents that are agents: trained ones from checkpoints, and the agent's own past copies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tdmpc_lab.agent import Agent
from tdmpc_lab.config.phases import SELF, Mode, opponent_weights, split_mode
from tdmpc_lab.config.schema import EnvConfig, SelfPlayConfig
from tdmpc_lab.errors import CheckpointError, EnvironmentSpecError
from tdmpc_lab.files import Guard
from tdmpc_lab.training.load import load_agent, save_copy

FALLBACK = "weak"
"""Who plays in the place of `self` while there is no copy and nobody else."""


class AgentOpponent:
    """An agent as player two. Copies of it share the agent."""

    def __init__(self, agent: Agent, name: str, mode: Mode) -> None:
        self.name = name
        self._agent, self._mode = agent, mode
        self.start_episode(0)

    def __deepcopy__(self, memo: dict[int, Any]) -> AgentOpponent:
        return AgentOpponent(self._agent, self.name, self._mode)

    def start_episode(self, seed: int) -> None:
        """Forget the last plan; what planning draws in this episode comes from its seed."""
        self._plan = self._agent.plan_state(1, seed=seed)

    def act(self, obs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Action (A,) for player two's own observation (O,), without exploration noise."""
        row = obs.astype(np.float32)[np.newaxis]
        plans = self._mode == "plan"
        actions = self._agent.act(row, self._plan, explore=False) if plans else self._agent.act_prior(row)
        return actions.reshape(-1).astype(np.float64)


class OpponentFiles(Protocol):
    """Where the checkpoints of named opponents lie."""

    def __call__(self, name: str) -> Path | None:
        """The checkpoint of an opponent, by its name in the spec without its mode; None for no such name."""


def no_files(name: str) -> Path | None:  # noqa: ARG001
    """There are no opponents but the bots."""
    return None


class AgentOpponents:
    """Makes the opponents that are agents; each checkpoint is read once."""

    def __init__(
        self, files: OpponentFiles, *, device: str, observation_dim: int, action_dim: int, default: Mode = "policy"
    ) -> None:
        """The two sizes are what an opponent of this game must have; `default` is the mode of a name without one."""
        self._files, self._device, self._default = files, device, default
        self._sizes = (observation_dim, action_dim)
        self._agents: dict[Path, Agent] = {}

    def find(self, name: str) -> AgentOpponent | None:
        """The opponent of this name, None for one that is not known.

        Raises:
            EnvironmentSpecError: its checkpoint can't be read, or it is an agent of another game.
        """
        ref, mode = split_mode(name, self._default)
        path = self._files(ref)
        return None if path is None else self.from_file(path, ref, mode)

    def from_file(self, path: Path, name: str, mode: Mode) -> AgentOpponent:
        """The agent of a checkpoint as an opponent called `name`. Raises as `find`."""
        if path not in self._agents:
            try:
                agent = load_agent(path, device=self._device).agent
            except CheckpointError as error:
                raise EnvironmentSpecError(f"opponent {name!r}: {error}") from error
            sizes = (agent.model.observation_dim, agent.model.action_dim)
            if sizes != self._sizes:
                raise EnvironmentSpecError(
                    f"opponent {name!r} plays another game: observation and action sizes {sizes}, not {self._sizes}"
                )
            self._agents[path] = agent
        return AgentOpponent(self._agents[path], name, mode)

    def forget_others(self, kept: Sequence[Path]) -> None:
        """Let go of the agents in the folder of `kept` but these: past copies that left the pool."""
        folders = {path.parent for path in kept}
        self._agents = {
            path: agent for path, agent in self._agents.items() if path in kept or path.parent not in folders
        }


class SelfPlayPool:
    """The agent's own past copies, in a folder: `copy_000001.pt` and so on.

    Which copies an episode can meet depends on how many had been made when it began, so that a resumed run meets
    the same ones. A copy stays on disk until no checkpoint that is kept can ask for it, see `prune`.
    """

    def __init__(
        self,
        config: SelfPlayConfig,
        folder: Path,
        made_of: Mapping[str, Any],
        guard: Guard = nullcontext,
    ) -> None:
        """`made_of` is the header of the copies, see `load.header`; `guard()` is entered around every change of the
        folder, and what it raises leaves the folder as it is."""
        self.config = config
        self._folder, self._made_of, self._guard = folder, made_of, guard

    def due(self, before: int, step: int) -> bool:
        """Whether a copy is to be made once the steps (before, step] are done."""
        first, every = self.config.from_step, self.config.every
        return step >= first and (step - first) // every > (before - first) // every

    def add(self, number: int, agent: Agent, step: int) -> None:
        """Keep the agent as it is now as copy `number` (from 1). Raises OSError, and what the guard raises."""
        save_copy(self._path(number), agent, self._made_of, step, self._guard)

    def first_member(self, copies: int) -> int:
        """Number of the oldest copy in the pool once `copies` had been made."""
        return max(1, copies - self.config.size + 1)

    def prune(self, first: int) -> None:
        """Remove the copies before number `first`: nothing that can still be continued from needs them."""
        with self._guard():
            for path in self._folder.glob("copy_*.pt"):
                if path < self._path(first):
                    path.unlink(missing_ok=True)

    def members(self, copies: int) -> list[Path]:
        """The copies in the pool once `copies` had been made, oldest first."""
        return [self._path(n) for n in range(self.first_member(copies), copies + 1)]

    def _path(self, number: int) -> Path:
        return self._folder / f"copy_{number:06d}.pt"


def env_with_pool(env: EnvConfig, copies: int) -> EnvConfig:
    """The `env` section for an episode that begins when the pool has `copies` copies: `self` needs at least one."""
    weights = opponent_weights(env)
    selves = [name for name in weights if split_mode(name)[0] == SELF]
    if not selves or copies > 0:
        return env
    others = {name: weight for name, weight in weights.items() if name not in selves}
    return replace(env, opponent=others or FALLBACK)


def evaluation_opponents(envs: Sequence[EnvConfig]) -> list[str]:
    """Whom to evaluate against: everybody these sections name, each once, but copies of the agent itself."""
    named = dict.fromkeys(name for env in envs for name in opponent_weights(env))
    others = [name for name in named if split_mode(name)[0] != SELF]
    return others or [FALLBACK]
