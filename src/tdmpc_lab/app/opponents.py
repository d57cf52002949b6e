"""Opponents that are agents: found by job id or path, and copied into the job that plays against them."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tdmpc_lab.app.agent_paths import is_path, no_agent, spec_for_agent
from tdmpc_lab.config.phases import SELF, opponent_weights, phases_of, split_mode
from tdmpc_lab.config.schema import Spec
from tdmpc_lab.errors import EnvironmentSpecError, UsageError
from tdmpc_lab.jobs.ids import is_job_id
from tdmpc_lab.jobs.paths import JobPaths, Project

if TYPE_CHECKING:
    from tdmpc_lab.envs.hockey.opponents import Opponent
    from tdmpc_lab.training.opponents import OpponentFiles

SCRIPTED = ("weak", "strong", "random", "none")
BOTS = (*SCRIPTED, SELF)
HUMAN = "human"
"""A person at the keyboard, in a window only."""
_KEY = "env.opponent "


def agents_named(spec: Spec) -> list[str]:
    """The opponents of a spec that are agents other than its own, without their mode, each once."""
    names = [name for phase in phases_of(spec) for name in opponent_weights(phase.env)]
    names += [] if spec.eval is None else spec.eval.opponents
    return [name for name in dict.fromkeys(split_mode(name)[0] for name in names) if name not in BOTS]


def find_checkpoint(project: Project, text: str) -> Path:
    """The checkpoint meant by a path (of a folder the newest in it), a job id (its newest one) or `ID@STEP`.

    Raises:
        UsageError: there is no such job or file, or the job or the folder has no checkpoint, or none of that step; with
            the nearest that there is.
    """
    path = Path(text)
    for place in (path, project.root / path):
        if place.is_file() and place.suffix in (".yaml", ".yml"):
            raise UsageError(spec_for_agent(text, place))
        if place.is_file():
            return place
        if place.is_dir() and (found := sorted(place.glob("*.pt"))):
            return found[-1]
    name, step = _step_asked_for(text)
    job = _job_with_agent(project, name)
    checkpoints = {int(path.stem.removeprefix("step_")): path for path in sorted(job.checkpoints.glob("step_*.pt"))}
    if not checkpoints:
        raise UsageError(f"job {job.id} has no checkpoint (yet): there is no agent to load")
    if step is None:
        return checkpoints[max(checkpoints)]
    there = ", ".join(f"{job.id}@{number}" for number in sorted(checkpoints))
    if not step.replace("_", "").isdecimal():
        raise UsageError(f"{text}: behind the @ stands the step of a checkpoint, a whole number; there are {there}")
    if int(step) not in checkpoints:
        raise UsageError(
            f"job {job.id} has no checkpoint of step {int(step):,} (a job keeps its newest ones); there are {there}"
        )
    return checkpoints[int(step)]


def _step_asked_for(text: str) -> tuple[str, str | None]:
    """`ID@STEP` in its two parts."""
    name, at, step = text.rpartition("@")
    return (name, step) if at and os.sep not in text and not text.endswith(".pt") else (text, None)


def _job_with_agent(project: Project, text: str) -> JobPaths:
    """The job of this id, for its agent. Raises UsageError."""
    try:
        return project.require_job(text)
    except UsageError as error:
        if is_job_id(text) or project.jobs_like(text):
            raise
        raise UsageError(no_agent(project, text, str(error))) from error


def job_of_checkpoint(project: Project, checkpoint: Path) -> JobPaths | None:
    """The job whose own agent this is; the copy of another agent in a job's folder is not."""
    job = JobPaths(checkpoint.parent.parent)
    own = checkpoint.parent in (job.checkpoints, job.pool)
    return job if own and job.folder.parent == project.jobs.resolve() and job.record.is_file() else None


def stand_in(project: Project, name: str, frozen: JobPaths | None = None) -> Opponent | None:
    """The opponent that is an agent, or somebody in the place of `self`, for a check; None for a name not known.

    Copies in the folder of the job `frozen` come before anything newer.
    Raises EnvironmentSpecError for a job without a checkpoint, an agent that can't be read or plays another game.
    """
    from tdmpc_lab.envs.hockey.constants import NUM_ACTIONS, NUM_OBSERVATIONS
    from tdmpc_lab.envs.hockey.opponents import NoOpponent

    ref, _ = split_mode(name)
    if ref == SELF:
        return NoOpponent()
    try:
        path = agent_files(project, frozen)(ref)
    except UsageError as error:
        raise EnvironmentSpecError(f"opponent {name!r} is no agent: {error}") from error
    if path is None:
        return None
    from tdmpc_lab.training.opponents import AgentOpponents

    agents = AgentOpponents(lambda _: path, device="cpu", observation_dim=NUM_OBSERVATIONS, action_dim=NUM_ACTIONS)
    return agents.find(name)


def freeze_opponents(project: Project, spec: Spec, job: JobPaths, repeated: JobPaths | None = None) -> None:
    """Copy the agents that a spec plays against into the job's folder: their own jobs go on, and prune checkpoints.

    The copies of a job that is `repeated` are taken before anything newer.
    Raises:
        UsageError, CheckpointError: one can't be found or read.
    """
    for name in agents_named(spec):
        if repeated is not None and (old := _frozen(repeated, name)).is_file():
            job.opponents.mkdir(exist_ok=True)
            shutil.copyfile(old, _frozen(job, name))
            continue
        from tdmpc_lab.training.load import extract_copy

        extract_copy(find_checkpoint(project, name), _frozen(job, name))


def frozen_opponents(job: JobPaths) -> OpponentFiles:
    """Where the agents that a job plays against lie, by their name in its spec."""

    def find(name: str) -> Path | None:
        path = _frozen(job, name)
        return path if path.is_file() else None

    return find


def agent_files(project: Project, frozen: JobPaths | None = None) -> OpponentFiles:
    """Where agents named in a spec or on the command line lie: among the copies of the job `frozen`, else anywhere.

    The result raises UsageError for a job without a checkpoint, and for a path where no agent is.
    """

    def find(name: str) -> Path | None:
        if name in BOTS:
            return None
        if frozen is not None and (copy := _frozen(frozen, name)).is_file():
            return copy
        try:
            return find_checkpoint(project, name)
        except UsageError:
            if is_job_id(_step_asked_for(name)[0]) or is_path(project, name):
                raise
            return None  # the message about a misspelt bot is the better one

    return find


def check_option(project: Project, name: str, *, human: bool = False) -> None:
    """See that an opponent given as `--opponent NAME` is one; `human` tells whether a person can play here.

    Raises UsageError, with what the command takes.
    """
    ref, _ = split_mode(name)
    if ref == SELF:
        raise UsageError(
            f"--opponent {name}: an agent's past copies play in its training only; name the job or the "
            "checkpoint to play against"
        )
    if name in SCRIPTED or (human and name == HUMAN):
        return
    try:
        found = agent_files(project)(ref)
    except UsageError as error:
        raise UsageError(f"--opponent {name}: {error}") from error
    if found is None:
        where = "; a person plays with: tdmpc-lab play … --human" if name == HUMAN else ""
        raise UsageError(f"--opponent {name} {not_known(name, [HUMAN] if human else [])}{where}")


def not_known(name: str, more: Sequence[str] = (), *, agents: bool = True) -> str:
    """`is not known: did you mean 'strong'?`, or which names there are: the bots', `more`, and `agents`."""
    names = [*SCRIPTED, *more]
    near = difflib.get_close_matches(split_mode(name)[0], names, n=1)
    if near:
        return f"is not known: did you mean '{near[0]}'?"
    paths = ["a job id", "the path of a checkpoint or of a folder with one"] if agents else []
    *first, last = [*names, *paths]
    return f"is not known: write one of {', '.join(first)} or {last}"


@contextlib.contextmanager
def told_of_option(*, given: bool) -> Iterator[None]:
    """What is wrong with an opponent `given` as `--opponent` is told of that, not of the key that it stands for."""
    try:
        yield
    except EnvironmentSpecError as error:
        if not given or not str(error).startswith(_KEY):
            raise
        raise EnvironmentSpecError(f"--opponent {str(error).removeprefix(_KEY)}") from error


def _frozen(job: JobPaths, name: str) -> Path:
    readable = re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_")[-60:]
    return job.opponents / f"{readable}-{hashlib.sha256(name.encode()).hexdigest()[:8]}.pt"
