"""Agents out of checkpoints: a checkpoint says itself what it was made of."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tdmpc_lab.agent import Agent
from tdmpc_lab.config.loader import load_resolved_text
from tdmpc_lab.config.schema import Spec
from tdmpc_lab.errors import CheckpointError, SpecError
from tdmpc_lab.files import Guard
from tdmpc_lab.training.checkpoints import load_checkpoint, reading_state, save_checkpoint

HEADER = ("spec", "observation_dim", "action_dim", "episode_length")


@dataclass(frozen=True)
class LoadedAgent:
    """An agent ready to act, and where it comes from."""

    agent: Agent
    spec: Spec
    step: int
    """Environment steps it was trained for."""
    made_of: Mapping[str, Any]
    """See `header`."""
    trains_on: bool = False
    """Whether its optimizers and running scale are loaded too."""


def header(spec_yaml: str, observation_dim: int, action_dim: int, episode_length: int) -> dict[str, Any]:
    """What makes a checkpoint one that an agent can be built from: the resolved spec and the environment's sizes."""
    return {
        "spec": spec_yaml,
        "observation_dim": observation_dim,
        "action_dim": action_dim,
        "episode_length": episode_length,
    }


def load_agent(path: Path, *, device: str, training: bool = False) -> LoadedAgent:
    """The agent of a checkpoint, with its networks alone: for playing.

    With `training` also its optimizers and running scale, where the checkpoint holds them: what another training begins
    with, see `save_copy`.

    Raises:
        CheckpointError: it can't be read, or does not say what it was made of.
        ExternalError: the device is not there.
    """
    state = load_checkpoint(path)
    missing = [key for key in HEADER if key not in state]
    if missing:
        raise CheckpointError(f"{path}: does not say {', '.join(missing)}; it was made by an older version")
    try:
        spec = load_resolved_text(state["spec"], str(path))
    except SpecError as error:
        raise CheckpointError(f"{path}: its spec can't be read: {error}") from error
    with reading_state(str(path)):
        agent = Agent(
            int(state["observation_dim"]),
            int(state["action_dim"]),
            episode_length=int(state["episode_length"]),
            agent=spec.agent,
            planner=spec.planner,
            seed=spec.train.seed,
            device=device,
        )
        trains_on = False
        if training:
            trains_on = agent.load_start(state["agent"])
        else:
            agent.load_weights(state["agent"])
        return LoadedAgent(agent, spec, int(state["step"]), {key: state[key] for key in HEADER}, trains_on)


def load_start(path: Path, agent: Agent) -> tuple[int, bool]:
    """Have an agent begin with another one's networks, and its optimizers and running scale where the file holds them.

    Returns the step that the other one had been trained to, and whether the file holds them.

    Raises:
        CheckpointError: it can't be read, or its networks do not fit.
    """
    state = load_checkpoint(path)
    with reading_state(str(path)):
        return int(state["step"]), agent.load_start(state["agent"])


def save_copy(
    path: Path,
    agent: Agent,
    made_of: Mapping[str, Any],
    step: int,
    guard: Guard = nullcontext,
    *,
    training: bool = False,
) -> None:
    """Write the networks alone, small enough to keep many: what `load_agent` needs. `made_of` is a `header`.

    With `training` also optimizers and running scale, three times as much: what another training begins with.

    Raises as `save_checkpoint`.
    """
    kept = {"model": agent.model.state_dict()}
    if training:
        kept["learner"] = agent.learner.state_dict()
    save_checkpoint(path, {"step": step, **made_of, "agent": kept}, guard)


def extract_copy(checkpoint: Path, path: Path) -> None:
    """The same out of a checkpoint on disk, without the replay and the optimizers.

    Raises:
        CheckpointError: as `load_agent`.
    """
    loaded = load_agent(checkpoint, device="cpu")
    save_copy(path, loaded.agent, loaded.made_of, loaded.step)
