"""`train.start_from`: the agent that a training begins with, found, read and checked before anything is written."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tdmpc_lab.app.agents.opponents import find_checkpoint, job_of_checkpoint
from tdmpc_lab.app.submit.specs import Dimensions, environment_dimensions
from tdmpc_lab.config.diff import shown
from tdmpc_lab.config.loader import LoadedSpec
from tdmpc_lab.config.rules import NETWORK_KEYS
from tdmpc_lab.config.schema import EnvConfig
from tdmpc_lab.config.serialize import flatten, to_dict
from tdmpc_lab.errors import CheckpointError, LabError, Problem, SpecError, UsageError
from tdmpc_lab.jobs.paths import JobPaths, Project
from tdmpc_lab.jobs.record import read_record, start_words

if TYPE_CHECKING:
    from tdmpc_lab.training.load import LoadedAgent


KEY = "train.start_from"


class StartAgent:
    """An agent to begin with, read once: all jobs that are submitted together begin with the same, whatever becomes of
    the file in the meantime.

    Args:
        told: see `JobRecord.start_from`.
    """

    def __init__(self, loaded: LoadedAgent, told: dict[str, Any]) -> None:
        self.told = told
        self._loaded = loaded
        self._kept: Path | None = None

    def __str__(self) -> str:
        return start_words(self.told)

    def keep(self, job: JobPaths) -> None:
        """Have it in the job's folder; jobs that are submitted together share one file where the disk can do that.

        Raises OSError.
        """
        from tdmpc_lab.training.load import save_copy

        if self._kept is not None:
            job.start.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            with contextlib.suppress(OSError):  # no links here, or the other job's folder is gone already
                os.link(self._kept, job.start)
                return
        agent = self._loaded
        save_copy(job.start, agent.agent, agent.made_of, agent.step, training=agent.trains_on)
        self._kept = job.start

    def misfits(self, item: LoadedSpec, sizes: Dimensions | None) -> Iterator[Problem]:
        """What of a spec is not as the networks were made, key by key; `sizes` are those of its environment."""
        theirs, ours = (flatten(to_dict(spec)) for spec in (self._loaded.spec, item.spec))
        for key in NETWORK_KEYS:
            if theirs[key] != ours[key]:
                made = shown(key, theirs[key])
                source, line = item.origin(key)
                yield Problem(
                    file=source,
                    line=line,
                    key=key,
                    message=f"found {shown(key, ours[key])}, and {KEY} ({self}) was made with {made}",
                    hint=f"write {key}: {made}",
                )
        if sizes is None:
            return
        model = self._loaded.agent.model
        for what, made_for, here in (
            ("observation", model.observation_dim, sizes.observation),
            ("action", model.action_dim, sizes.action),
        ):
            if made_for != here:
                source, line = item.origin(KEY)
                yield Problem(
                    file=source,
                    line=line,
                    key=KEY,
                    message=f"{self} was made for {what}s of {made_for} values (of {self._loaded.spec.env.id}), and "
                    f"those of {item.spec.env.id} have {here}",
                )


def find_starts(
    project: Project,
    items: Sequence[LoadedSpec],
    *,
    sizes: Dimensions | None = None,
    make_environments: bool = True,
    repeated: JobPaths | None = None,
) -> list[StartAgent | None]:
    """The agent that each spec's training begins with; None where it begins with a fresh one.

    The copy of a job that is `repeated` is taken before anything newer.

    Args:
        sizes: of observation and action, instead of making the environments.
        make_environments: ask them for their sizes; what can't be made here is compared by its config alone.

    Raises:
        SpecError: with every agent that can't be found or read, and every key that does not fit.
    """
    read: dict[str, StartAgent | str] = {}
    known: dict[str, Dimensions | None] = {}
    found: list[StartAgent | None] = []
    problems: dict[Problem, None] = {}
    for item in items:
        if item.spec.train.start_from is None:
            found.append(None)
            continue
        name = str(item.spec.train.start_from)
        if name not in read:
            read[name] = _read(project, name, repeated)
        start = read[name]
        if isinstance(start, str):
            source, line = item.origin(KEY)
            problems[Problem(file=source, line=line, key=KEY, message=start)] = None
            found.append(None)
            continue
        env = repr(item.spec.env)
        if env not in known:
            known[env] = sizes or (_sizes(item.spec.env) if make_environments else None)
        problems |= dict.fromkeys(start.misfits(item, known[env]))
        found.append(start)
    if problems:
        raise SpecError(list(problems))
    return found


def start_of_record(job: JobPaths) -> dict[str, Any] | None:
    """What a job's record says of the agent that it, or the job that it continues from, began with."""
    return read_record(job).start_from


def _read(project: Project, name: str, repeated: JobPaths | None) -> StartAgent | str:
    """The agent, or why there is none."""
    from tdmpc_lab.training.load import load_agent

    try:
        if repeated is not None and repeated.start.is_file():
            told = start_of_record(repeated)
            if told is not None and told.get("agent") == name:
                return StartAgent(load_agent(repeated.start, device="cpu", training=True), told)
        checkpoint = find_checkpoint(project, name)
        loaded = load_agent(checkpoint, device="cpu", training=True)
    except (UsageError, CheckpointError) as error:
        return str(error)
    job = job_of_checkpoint(project, checkpoint.resolve())
    told = {
        "agent": name,
        "job": None if job is None else job.id,
        "step": loaded.step,
        "optimizers": loaded.trains_on,
    }
    return StartAgent(loaded, told)


def _sizes(env: EnvConfig) -> Dimensions | None:
    try:
        return environment_dimensions(env)
    except LabError:  # told where environments are checked; in a container it may be one that can be made
        return None
