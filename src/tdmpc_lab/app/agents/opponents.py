"""Which agent a name or path means: bots, jobs, checkpoints, exported folders; and what is there instead if none is."""

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

from tdmpc_lab.config.phases import SELF, opponent_weights, phases_of, split_mode
from tdmpc_lab.config.schema import Spec
from tdmpc_lab.errors import EnvironmentSpecError, UsageError
from tdmpc_lab.jobs.find import jobs_like, require_job
from tdmpc_lab.jobs.ids import is_job_id
from tdmpc_lab.jobs.paths import JobPaths, Project

if TYPE_CHECKING:
    from tdmpc_lab.envs.hockey.opponents import Opponent
    from tdmpc_lab.training.opponents import OpponentFiles


SCRIPTED = ("weak", "strong", "random", "none")
BOTS = (*SCRIPTED, SELF)
HUMAN = "human"
"""A user at the keyboard, in a window only."""


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
        return require_job(project, text)
    except UsageError as error:
        if is_job_id(text) or jobs_like(project, text):
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
    """Copy the agents that a spec plays against into the job's folder: their own jobs continue, and prune checkpoints.

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
    """See that an opponent given as `--opponent NAME` is one; `human` tells whether a user can play here.

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
        where = "; a user plays with: tdmpc-lab play … --human" if name == HUMAN else ""
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
        if not given or error.key != "env.opponent":
            raise
        raise EnvironmentSpecError(f"--opponent {error.said}") from error


def _frozen(job: JobPaths, name: str) -> Path:
    readable = re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_")[-60:]
    return job.opponents / f"{readable}-{hashlib.sha256(name.encode()).hexdigest()[:8]}.pt"


AGENT = "agent.pt"
"""The agent in a folder that `export` has made, beside its spec."""
_MODELS = "models"  # the project's folder for these
_SHOWN = 3
_ALLOWED = "allowed: a job id, a checkpoint (*.pt) or a folder with one"


def is_path(project: Project, text: str) -> bool:
    """Whether the text is meant as a file or folder, and not as the name of a job or a bot."""
    return os.sep in text or text.endswith(".pt") or any(place.exists() for place in (Path(text), project.root / text))


def trained_beside(spec: Path) -> Path | None:
    """The folder of a spec, where it holds the agent that was trained by it."""
    return spec.parent if (spec.parent / AGENT).is_file() else None


def no_agent(project: Project, text: str, no_job: str) -> str:
    """Why there is no agent at a path, or by a name, that is no job's either: `no_job` says that."""
    path = Path(text)
    for place in (path, project.root / path):
        if place.is_dir():
            return _of_folder(place, path)
    near = _near(project, path)
    hint = f"did you mean {' or '.join(near)}?" if near else ""
    if path.suffix == ".pt":
        return f"{text}: no such checkpoint; {hint or _ALLOWED}"
    if is_path(project, text):
        return f"{text}: no such file or folder; {hint or _ALLOWED}"
    if near:
        return f"{text!r} is neither a job id nor a file or folder; {hint}"
    return f"{no_job}; nor is there a file or folder of this name"


def spec_for_agent(text: str, spec: Path) -> str:
    """What to say of a spec in the place of an agent."""
    hint = _ALLOWED if trained_beside(spec) is None else f"did you mean {Path(text).with_name(AGENT)}?"
    return f"{text}: this is a spec, no agent; {hint}"


def _of_folder(place: Path, path: Path) -> str:
    if JobPaths(place).record.is_file():
        return f"{path}: this is the folder of a job; give its id: {place.resolve().name}"
    inside = [str(path / name) for name in _agents_in(place)]
    if not inside:
        return f"{path}: this folder holds no agent; {_ALLOWED}"
    more = f" and {len(inside) - _SHOWN} more" if len(inside) > _SHOWN else ""
    return f"{path}: this folder holds no agent itself; did you mean {' or '.join(inside[:_SHOWN])}{more}?"


def _near(project: Project, path: Path) -> list[str]:
    """Agents whose paths are like this one, and those in the project's models that are called so."""
    found: dict[Path, str] = {}
    for base in (Path(), project.root):  # of an absolute path both are its own
        for near in _corrected(base, path):
            found.setdefault((base / near).resolve(), str(near))
    for near in _corrected(project.root, Path(_MODELS) / path.name):
        found.setdefault((project.root / near).resolve(), str(near))
    return list(found.values())[:_SHOWN]


def _corrected(base: Path, path: Path) -> list[Path]:
    """The path with every part that is not there replaced by the nearest that is, as far as agents are found so."""
    *folders, last = path.parts or ("",)
    here = Path()
    for part in folders:
        if not (base / here / part).is_dir():
            near = _close(part, [entry.name for entry in _entries(base / here) if entry.is_dir()])
            if not near:
                return []
            part = near[0]  # noqa: PLW2901
        here /= part
    close = _close(last, [entry.name for entry in _entries(base / here)])
    agents = [here / name for name in close if _is_agent(base / here / name)]
    return agents or [here / name / inner for name in close for inner in _agents_in(base / here / name)]


def _close(name: str, names: Sequence[str]) -> list[str]:
    return difflib.get_close_matches(name, names, n=_SHOWN)


def _agents_in(folder: Path) -> list[str]:
    """The names of the folders in this one that hold an agent."""
    return sorted(entry.name for entry in _entries(folder) if entry.is_dir() and _is_agent(entry))


def _is_agent(path: Path) -> bool:
    return path.suffix == ".pt" if path.is_file() else any(entry.suffix == ".pt" for entry in _entries(path))


def _entries(folder: Path) -> list[Path]:
    """What is in a folder; nothing where it is none, or can't be looked into."""
    with contextlib.suppress(OSError):
        return sorted(folder.iterdir())
    return []
