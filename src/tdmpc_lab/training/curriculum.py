"""What changes over a training besides the agent: the phases with their rewards, and the pool of past copies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tdmpc_lab.agent import Agent, Episode
from tdmpc_lab.config.phases import Phase
from tdmpc_lab.config.schema import EnvConfig, RewardConfig
from tdmpc_lab.envs import EpisodeSetting
from tdmpc_lab.training.metrics import Row
from tdmpc_lab.training.opponents import SelfPlayPool
from tdmpc_lab.training.recorder import EpisodeRecorder

ONE_PHASE = (Phase(1, 0, EnvConfig(id="unnamed"), RewardConfig(), ()),)


class Curriculum:
    """Where the training stands in its phases and its pool.

    Args:
        phases: at least one; an episode belongs to the one it began in.
        pool: keeps copies of the agent to play against; None for none.
    """

    def __init__(self, phases: Sequence[Phase] = ONE_PHASE, pool: SelfPlayPool | None = None) -> None:
        self.phases, self.pool = tuple(phases), pool
        self.setting = EpisodeSetting()
        """What episodes that begin now are played in."""
        self._ramps_from = [0]  # per phase begun: the training episode that its reward's ramps count from
        self._first_needed: list[int] = []  # per checkpoint that is kept: the oldest copy it can ask for
        self._reshaped = any(phase.reward.shaping or phase.reward.backprop for phase in self.phases)

    def enter(self, step: int, episodes: int) -> list[Phase]:
        """Begin the phases whose first step has been reached, and return them; `episodes` are finished so far.

        A phase with the reward of the one before continues with its ramps, another reward begins with its own.
        """
        begun = []
        while len(self._ramps_from) < len(self.phases) and step >= self.phases[len(self._ramps_from)].first_step:
            index = len(self._ramps_from)
            same = self.phases[index].reward == self.phases[index - 1].reward
            self._ramps_from.append(self._ramps_from[-1] if same else episodes)
            self.setting = self.setting._replace(phase=index)
            begun.append(self.phases[index])
        return begun

    def finish(self, recorder: EpisodeRecorder, setting: EpisodeSetting, episodes: int) -> tuple[Episode, Row]:
        """A finished episode as the replay takes it, and what the metrics say of it.

        `setting` is what it was played in, `episodes` are those finished before it.
        """
        phase = self.phases[setting.phase]
        rewards = recorder.rewards(phase.reward, episodes - self._ramps_from[setting.phase])
        row = recorder.summary
        if self._reshaped:
            row |= {"return_shaped": float(rewards.shaped.sum()), "return_backprop": float(rewards.learned.sum())}
            row |= rewards.weights
        if len(self.phases) > 1:
            row["phase"] = phase.number
        return recorder.episode(rewards.learned, phase.reward.scale), row

    def copy_due(self, before: int, step: int) -> bool:
        """Whether the pool wants a copy of the agent once the steps (before, step] are done."""
        return self.pool is not None and self.pool.due(before, step)

    def copy(self, agent: Agent, step: int) -> int:
        """Put the agent as it is now into the pool; returns the copy's number, from 1. Raises OSError."""
        assert self.pool is not None
        number = self.setting.copies + 1
        self.pool.add(number, agent, step)
        self.setting = self.setting._replace(copies=number)
        return number

    def state_dict(self, running: Sequence[EpisodeSetting]) -> dict[str, Any]:
        """For a checkpoint, while episodes of these settings are running."""
        return {
            "setting": list(self.setting),
            "ramps_from": list(self._ramps_from),
            "first_needed": self._needed_with(running),
        }

    def saved(self, running: Sequence[EpisodeSetting], kept: int) -> None:
        """A checkpoint was written, and the newest `kept` ones are there: copies that none of them needs go."""
        self._first_needed = self._needed_with(running)[-kept:]
        if self.pool is not None and len(self._first_needed) == kept:
            self.pool.prune(min(self._first_needed))

    def _needed_with(self, running: Sequence[EpisodeSetting]) -> list[int]:
        if self.pool is None:
            return []
        copies = min([self.setting.copies, *(setting.copies for setting in running)])
        return [*self._first_needed, self.pool.first_member(copies)]

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.setting = EpisodeSetting(*state["setting"])
        self._ramps_from = [int(first) for first in state["ramps_from"]]
        self._first_needed = [int(first) for first in state["first_needed"]]
